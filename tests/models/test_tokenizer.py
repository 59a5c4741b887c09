"""Texts stay texts: no special-token string in one becomes a special token, in any vocabulary."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from families import DOC_TEXTS, QUERY_TEXTS, folder_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from raypipe.config import ConfigError
from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder, save
from raypipe.models.tokenizer import check_pairs, check_texts, load_tokenizer

LETTERS = ["< > / [ ] abcdefghijklmnopqrstuvwxyz SEPCLMA 0123456789 _ ."] * 3
"""No N, D or U, so that [PAD] and [UNK] are not spelled in pieces."""
UNIGRAM = {
    "DebertaV2Tokenizer": (["[PAD]", "[CLS]", "[SEP]", "[UNK]"], "[UNK]", {"unk_id": 3}),
    "XLMRobertaTokenizer": (["<s>", "<pad>", "</s>", "<unk>"], "<unk>", {}),
    "AlbertTokenizer": (["<pad>", "<unk>", "[CLS]", "[SEP]"], "<unk>", {}),
    "T5Tokenizer": (["<pad>", "</s>", "<unk>"], "<unk>", {"extra_ids": 2}),
    "XLNetTokenizer": (["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>"], "<unk>", {}),
}
quick = settings(deadline=None, max_examples=30, database=None)


@functools.cache
def scratch() -> Path:
    return folder_of("bert").parent / "tokenizers"


@functools.cache
def folder(name: str) -> Path:
    """A saved tokenizer: of a family, or a Unigram class in the form of the published ones."""
    if name not in UNIGRAM:
        return folder_of(name)
    special, unknown, fields = UNIGRAM[name]
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=160, special_tokens=special, unk_token=unknown, show_progress=False
    )
    inner.train_from_iterator(QUERY_TEXTS + DOC_TEXTS + LETTERS, trainer)
    pieces = [tuple(piece) for piece in json.loads(inner.to_str())["model"]["vocab"]]
    made = getattr(transformers, name)(vocab=pieces, model_max_length=512, **fields)
    made.save_pretrained(scratch() / name)
    return scratch() / name


@functools.cache
def opened(name: str) -> Any:
    return load_tokenizer(folder(name))


def special(tokenizer: Any) -> list[str]:
    return [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special]


def inside(tokenizer: Any, text: str) -> set[int]:
    """Special ids in a text's own tokens, but for the unknown token, which a letter may be."""
    known = {*tokenizer.all_special_ids, *tokenizer.convert_tokens_to_ids(special(tokenizer))}
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids
    return known & {*ids} - {tokenizer.unk_token_id}


every = pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "deberta_v3", *UNIGRAM])


@every
@quick
@given(data=st.data())
def test_special_token_strings_in_texts_are_text(name, data):
    tokenizer = opened(name)
    word = st.sampled_from([*special(tokenizer), "bama", "duri", "5", "ü", "<", "[", "/s>", "]"])
    parts = data.draw(st.lists(word, min_size=1, max_size=6))
    text = data.draw(st.sampled_from([" ", ""])).join(parts)
    assert not inside(tokenizer, text), text


@every
@quick
@given(
    st.lists(
        st.sampled_from(["bama", "Dume", "zu,", "praN", "中文", "ünDo", "[D", "x"]), min_size=1
    )
)
def test_other_texts_have_the_tokens_of_the_published_tokenizer(name, words):
    plain = transformers.AutoTokenizer.from_pretrained(folder(name))
    for text in (" ".join(words), "".join(words)):
        theirs = plain(text, add_special_tokens=False)["input_ids"]
        assert opened(name)(text, add_special_tokens=False)["input_ids"] == theirs


def test_a_unigram_vocabulary_finds_them_by_itself():
    """Without which the tests above would show nothing."""
    for name, (strings, *_) in UNIGRAM.items():
        plain = transformers.AutoTokenizer.from_pretrained(folder(name), split_special_tokens=True)
        if name != "AlbertTokenizer":  # lower-cases, so that it finds none of capitals
            assert inside(plain, f"bama {strings[1]} duri"), name
            with pytest.raises(ConfigError, match=r"^here: the tokenizer, .* as its special token"):
                check_texts(plain, "here")
        check_texts(opened(name), "here")


@pytest.mark.parametrize("name", ["DebertaV2Tokenizer", "XLMRobertaTokenizer", "XLNetTokenizer"])
def test_an_exported_tokenizer_has_the_same_tokens(name, tmp_path):
    """Opened by transformers alone, and by raypipe as the next backbone."""
    config = transformers.BertConfig(
        vocab_size=len(opened(name)), num_labels=1, num_hidden_layers=1, hidden_size=16,
        num_attention_heads=2, intermediate_size=16, max_position_embeddings=40,
    )  # fmt: skip
    save(transformers.BertForSequenceClassification(config), tmp_path / "out", folder(name), 32)
    exported = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = opened(name)
    texts = [f"bama {string} duri [D] praN" for string in special(ours)]
    pairs = [(texts, texts[::-1]), (QUERY_TEXTS, DOC_TEXTS[: len(QUERY_TEXTS)])]
    again = load_tokenizer(tmp_path / "out")
    for queries, docs in pairs:
        found = exported(queries, docs, truncation=True, max_length=30)
        for other in (ours, again):
            assert dict(found) == dict(other(queries, docs, truncation=True, max_length=30))
    assert exported.model_max_length == 32
    assert all(not inside(exported, text) for text in texts)


def test_the_identity_rises_for_unigram_only(tmp_path):
    """What a token store of an earlier version holds of the others stays in use."""

    def identity(name: str) -> tuple[str, str]:
        backbone = Backbone(str(folder(name)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("raypipe.models.backbone._LOWERED", {})
            before = backbone.tokenizer_identity
        return before, backbone.tokenizer_identity

    for name in ("bert", "roberta", "modernbert", "electra"):
        before, now = identity(name)
        assert before == now, name
    before, now = identity("deberta_v3")
    assert before != now
    bare = tmp_path / "bare"
    shutil.copytree(folder("deberta_v3"), bare)
    (bare / "tokenizer.json").unlink()
    (bare / "spm.model").write_text("pieces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raypipe.models.backbone._LOWERED", {})
        before = Backbone(str(bare)).tokenizer_identity
    assert before != Backbone(str(bare)).tokenizer_identity


# --- what is refused ------------------------------------------------------------------------------


def word_level(target: Path, template: str | None) -> None:
    """A vocabulary of whole words, whose special tokens are words like others."""
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", *"abcde", "bama", "duri"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template:
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair=template, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(target)


def backbone(target: Path) -> Path:
    """A BERT without a head, whose tokenizer a test replaces."""
    shutil.copytree(folder_of("bert"), target)
    return target


def test_a_vocabulary_of_words_that_has_the_special_tokens_as_words(tmp_path):
    model = backbone(tmp_path / "model")
    word_level(model, "[CLS] $A [SEP] $B [SEP]")
    with pytest.raises(ConfigError, match=r"^model\.backbone .*reads '\[CLS\]' in a text as its"):
        CrossEncoder(backbone=str(model)).check()


@pytest.mark.parametrize("template", [None, "[CLS] $A $B [SEP]"])
def test_a_tokenizer_that_glues_query_and_document(tmp_path, template):
    word_level(tmp_path, template)
    tokenizer = load_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match=r"^here: .* puts nothing between query and document"):
        check_pairs(tokenizer, "here")
    word_level(tmp_path, "$A [SEP] $B")
    check_pairs(load_tokenizer(tmp_path), "here")


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "deberta_v3"])
def test_families_part_query_and_document(name):
    check_pairs(opened(name), "here")


def test_a_tokenizer_without_a_fast_version(tmp_path):
    """PhoBERT's: it cannot tell where the query ends."""
    model = backbone(tmp_path / "model")
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    (model / "vocab.txt").write_text("ba 9\ndu 8\n")
    (model / "bpe.codes").write_text("b a 10\n")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps({**config, "tokenizer_class": "PhobertTokenizer"})
    )
    with pytest.raises(ConfigError, match=r"tokenizer in .*, PhobertTokenizer, has no fast vers"):
        CrossEncoder(backbone=str(model)).check()
