"""Text stays text: special tokens spelled in every way that documents do, and in every vocabulary.

Every row of the tables is an input that no other test tries.
"""

# ruff: noqa: RUF001 - letters that look like others are what is tried
from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from families import DOC_TEXTS, QUERY_TEXTS, folder_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from raypipe.config import ConfigError
from raypipe.inference.pairs import Template
from raypipe.models.tokenizer import check_texts, load_tokenizer

quick = settings(deadline=None, max_examples=40, database=None)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*dict.fromkeys(word for text in QUERY_TEXTS + DOC_TEXTS for word in text.split())]


def scratch(name: str) -> Path:
    return folder_of("bert").parent / f"hostile-{name}"


def fast(name: str, inner: Tokenizer, special: list[str], **fields: Any) -> Path:
    """A saved tokenizer of PreTrainedTokenizerFast with BERT's template."""
    first, last = (inner.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    inner.post_processor = processors.BertProcessing(("[SEP]", last), ("[CLS]", first))
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    tokens = {f"{kind}_token": token for kind, token in names.items()}
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **tokens, **fields)
    made.save_pretrained(scratch(name))
    return scratch(name)


def vocabulary(*more: str) -> dict[str, int]:
    letters = [chr(c) for c in range(33, 127)]
    tokens = [*SPECIAL, *WORDS, *letters, *(f"##{c}" for c in letters), *more]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def spaced(kind: str) -> Path:
    """Texts are parted at spaces alone, so that "[SEP]" is a word that the vocabulary has."""
    known = vocabulary()
    inner = Tokenizer(
        models.WordLevel(known, "[UNK]")
        if kind == "words"
        else models.WordPiece(known, unk_token="[UNK]")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return fast(f"spaced-{kind}", inner, SPECIAL)


def merged() -> Path:
    """Byte pairs of a text full of separators, which merge to the separator's own string."""
    steps = ["[ S", "[S E", "[SE P", "[SEP ]"]
    known = vocabulary("[S", "[SE", "[SEP", "[SEP]", "<0x41>")
    pairs = [tuple(step.split()) for step in steps]
    inner = Tokenizer(models.BPE(known, pairs, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return fast("merged", inner, SPECIAL)


def folded() -> Path:
    """A normalizer makes a separator of full width letters before the words are looked up."""
    inner = Tokenizer(models.WordLevel(vocabulary(), "[UNK]"))
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return fast("folded", inner, SPECIAL)


def plain_added() -> Path:
    """The separator was added as an ordinary token."""
    inner = Tokenizer(models.WordPiece(vocabulary(), unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.add_tokens([AddedToken("<turn>", special=False), AddedToken("<end>", special=True)])
    return fast("plain-added", inner, SPECIAL)


@functools.cache
def unigram() -> Path:
    """XLM-R's form: the separator is a piece with the best score, and texts become NFKC."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = [(token, 0.0) for token in special]
    pieces += [("▁", -3.0), *((f"▁{word}", -4.0) for word in WORDS)]
    pieces += [(chr(c), -6.0) for c in range(33, 127) if chr(c) not in "q"]
    made = transformers.XLMRobertaTokenizer(vocab=pieces, model_max_length=512)
    made.backend_tokenizer.normalizer = normalizers.NFKC()
    made.save_pretrained(scratch("unigram"))
    return scratch("unigram")


OPENED = {
    "bert": lambda: folder_of("bert"),
    "roberta": lambda: folder_of("roberta"),
    "modernbert": lambda: folder_of("modernbert"),
    "deberta_v3": lambda: folder_of("deberta_v3"),
    "unigram with NFKC": unigram,
    "words with NFKC": folded,
}


@functools.cache
def opened(name: str) -> Any:
    return load_tokenizer(OPENED[name]())


def special_in(tokenizer: Any, text: str) -> set[int]:
    marked = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special]
    known = {*tokenizer.all_special_ids, *tokenizer.convert_tokens_to_ids(marked)}
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return known & {*ids} - {tokenizer.unk_token_id}


TEXTS = {
    "full width letters": "bama ［SEP］ ＜s＞ ＜／s＞ ［CLS］",
    "zero-width characters inside": "[S\u200bEP] <\u200bs> <\u2060/s> [\u00adMASK]",
    "one inside another": "[[SEP]] <<s>> [SEP[SEP]] [CLS][SEP]",
    "a thousand without spaces": "[SEP]" * 1000 + "</s>" * 1000,
    "lower and mixed case": "[sep] [Sep] <S> </S> <Mask> [mask]",
    "ends of lines around": "bama\n[SEP]\r\n<s>\t</s>\x0b[PAD]\u2028<pad>",
    "struck out in HTML": "<p>was <s>5 EUR</s>, now 4</p> <mask>x</mask>",
    "marks of accents behind": "[SEP]\u0301 </s>\u0308 <s>\u20dd",
    "quoted in code": "tokenizer.sep_token = \"[SEP]\"; eos = '</s>' # <pad>",
    "words glued on": "x[SEP]y0</s>z<s>duri[MASK]bama<unk>lo[UNK]",
    "entities": "&lt;s&gt; &#91;SEP&#93; [SEP&#93;",
    "only one": "</s>",
}


@pytest.mark.parametrize("name", OPENED)
@pytest.mark.parametrize("case", TEXTS)
def test_texts(case, name):
    assert not special_in(opened(name), TEXTS[case])


@pytest.mark.parametrize("name", OPENED)
@quick
@given(
    st.lists(st.sampled_from([*"[]<>/sSEPCLADMK|_ ａ＜［］＞\u200b\ufeff\u0301\n"]), max_size=24)
)
def test_any_letters_of_special_tokens(name, letters):
    """Property: however the letters of special tokens stand together."""
    assert not special_in(opened(name), "".join(letters))


@pytest.mark.parametrize("name", OPENED)
def test_a_pair_has_the_separators_of_its_template_alone(name):
    """Query and document, both full of them."""
    tokenizer = opened(name)
    text = "".join(TEXTS.values())
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    template = Template.of(tokenizer)
    plain = tokenizer("bama", "duri")["input_ids"]
    special = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    expected = sum(i in special for i in plain)
    pair = tokenizer(text, text)["input_ids"]
    assert sum(i in special for i in pair) == expected
    assert len(pair) == 2 * len(ids) + tokenizer.num_special_tokens_to_add(pair=True)
    assert template is not None


REFUSED = {
    "words parted at spaces": (lambda: spaced("words"), "[CLS]"),
    "pieces of words parted at spaces": (lambda: spaced("pieces"), "[CLS]"),
    "byte pairs that merge to the separator": (merged, "[SEP]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tokenizers_refused(case):
    make, token = REFUSED[case]
    with pytest.raises(ConfigError, match=r"reads '.*' in a text as its special token") as error:
        check_texts(load_tokenizer(make()), "here")
    assert repr(token) in str(error.value)


def test_a_token_that_was_added_as_an_ordinary_one_stays_one():
    """And one that was added as special does not."""
    tokenizer = load_tokenizer(plain_added())
    check_texts(tokenizer, "here")
    ordinary, special = tokenizer.convert_tokens_to_ids(["<turn>", "<end>"])
    ids = tokenizer("a <turn> b <end> c", add_special_tokens=False)["input_ids"]
    assert ordinary in ids and special not in ids


def test_a_separator_that_was_added_as_an_ordinary_token(tmp_path):
    """Splitting special tokens would not split it."""
    path = spaced("pieces")
    content = json.loads((path / "tokenizer.json").read_text())
    content["pre_tokenizer"] = {"type": "BertPreTokenizer"}
    for token in content["added_tokens"]:
        token["special"] = token["content"] != "[SEP]"
    for name in ("tokenizer_config.json",):
        (tmp_path / name).write_text((path / name).read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = load_tokenizer(tmp_path)
    try:
        check_texts(tokenizer, "here")
    except ConfigError as error:
        assert "as its special token '[SEP]'" in str(error)
    else:
        assert not special_in(tokenizer, "a [SEP] b [SEP]c")
