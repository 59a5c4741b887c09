"""Texts that are no negatives: judged ones, copies of them, the query itself; several sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chunks_here import builder_here

from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.datasets.text_hashes import TextHashes
from raypipe.groups.kept_out import KeptOut, read_step_texts
from raypipe.storage.artifacts import Store
from raypipe.tables.plain_text import text_hash

DOCS = {"d1": "West Lake", "d2": "west  lake", "q2": "an article", "d3": "another", "d4": "fourth"}
QUERIES = {"q1": "a lake", "q2": "an article of mine", "q3": "Another"}
QRELS = {"q1": {"d1": 2, "d4": 1, "gone": 1, "d3": 0}, "q2": {"d4": 1}, "q3": {"d1": 1}}


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "data"
    (made / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", DOCS), ("queries", QUERIES)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (made / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    rows = [f"{q}\t{d}\t{grade}" for q, judged in QRELS.items() for d, grade in judged.items()]
    (made / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(rows))
    return made


@pytest.fixture
def artifacts(folder, tmp_path, monkeypatch):
    """The inputs of a stage with that set, and with it a second time as a further one."""
    builder = builder_here(Store(str(tmp_path / "storage")), monkeypatch)
    chosen = QuerySet(dataset=f"beir:{folder}", split="train", positive_relevance=2)
    collection = Collection(chosen)
    kept_out = builder.get(KeptOut(Queries(chosen, False), collection))
    hashes = builder.get(TextHashes(collection))
    names = {"doc_texts": hashes, "kept_out": kept_out, "query_tokens": hashes}
    return {**names, "doc_texts of more": hashes, "kept_out of more": kept_out}, builder, chosen


def test_judged_texts_and_the_query_itself_are_kept_out(artifacts):
    inputs, builder, chosen = artifacts
    own = {name: artifact for name, artifact in inputs.items() if " of " not in name}
    texts = read_step_texts(own)
    assert texts.doc_texts.tolist() == [text_hash(text) for text in DOCS.values()]
    ids = builder.get(Queries(chosen, False)).counts
    assert own["kept_out"].counts["judged_documents_without_text"] == 1 and ids
    expected = {
        "q1": {"West Lake", "fourth", "a lake"},  # grade 1 is no positive, and no negative either
        "q2": {"fourth", "an article of mine", "an article"},  # the document of its id
        "q3": {"West Lake", "another"},  # the document with its text
    }
    order = read_order(builder, chosen)
    places, out = texts.kept_out(range(len(order)))
    for place, query_id in enumerate(order):
        found = set(out[places == place].tolist())
        assert found == {text_hash(text) for text in expected[query_id]}
    assert own["kept_out"].counts["queries"] == 3
    assert own["kept_out"].counts["texts"] == len(out) == 8
    again, _ = texts.kept_out([2, 2])
    assert set(again.tolist()) == {0, 1}
    assert texts.kept_out([7])[1].size == 0


def read_order(builder, chosen) -> list[str]:
    from raypipe.datasets.steps import QUERIES_FILE
    from raypipe.tables.text_table import TextTable

    return TextTable(builder.get(Queries(chosen, False)).local() / QUERIES_FILE).ids().to_pylist()


def test_rows_of_further_sets_stand_behind(artifacts):
    inputs, *_ = artifacts
    texts = read_step_texts(inputs)
    assert len(texts.doc_texts) == 10
    for row in range(3):
        (_, own), (_, further) = texts.kept_out([row]), texts.kept_out([3 + row])
        assert own.tolist() == further.tolist() and len(own)
    assert read_step_texts({"query_tokens": inputs["doc_texts"]}) is None
