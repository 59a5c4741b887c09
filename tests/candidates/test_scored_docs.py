"""Lists that a data set ships as candidates; no cluster is needed."""

from __future__ import annotations

from collections import namedtuple

import pytest
from small_source import read, small_data

from raypipe.candidates import scored_docs as scoreddocs
from raypipe.candidates.scored_docs import ScoredDocs
from raypipe.config import ConfigError
from raypipe.datasets.ir import IrDataset
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.tables import spill

Scored = namedtuple("Scored", "query_id doc_id score")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> QuerySet:
    return small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def builder(tmp_path_factory) -> Builder:
    return Builder(Store(str(tmp_path_factory.mktemp("storage"))))


def shipped(monkeypatch, rows: list[tuple[str, str, float]]) -> ScoredDocs:
    monkeypatch.setattr(IrDataset, "scoreddocs", lambda self: iter(rows))
    return ScoredDocs(dataset="beir/scifact/test", depth=3, name="official")


def test_scoreddocs_are_ordered_by_score_then_doc_id(builder, data, monkeypatch):
    scored = [("q1", "d1", 0.5), ("q1", "d4", 2.0), ("r", "d1", 1.0), ("q1", "d3", 2.0)]
    scored += [("q1", "d1", 1.5), ("q1", "x", 9.0), ("q2", "d6", 0.0), ("q2", "d5", 0.0)]
    monkeypatch.setattr(scoreddocs, "BATCH", 3)
    monkeypatch.setattr(spill, "PENDING", 0)
    found, counts, rows = read(builder, data, shipped(monkeypatch, scored))
    filled = {q: d for q, d in found.items() if d}
    assert filled == {"q1": ["d3", "d4"], "q2": ["d5", "d6"]}
    (one,) = (r for r in rows if r["query_id"] == "q1")
    assert one["scores"] == [2.0, 2.0] and one["sources"] == ["official"] * 2
    assert counts == {
        "scored_docs": 8,
        "other_queries": 1,
        "duplicates": 1,
        "beyond_depth": 1,
        "kept": 5,
        "unknown_documents": 1,
        "candidates": 4,
        "queries_without_candidates": 4,
        "queries_with_constant_scores": 2,  # q1 by what is left of it
    }


def test_scoreddocs_that_cannot_be_used(tmp_path, data, monkeypatch):
    builder = Builder(Store(str(tmp_path)))
    own = ScoredDocs().candidates(Collection(data), Queries(data, False), "fp32")
    with pytest.raises(ConfigError, match="dataset small-test has no scoreddocs"):
        builder.get(own)
    with pytest.raises(ConfigError, match="beir/scifact/test has no scoreddocs; no id below"):
        ScoredDocs(dataset="beir/scifact/test").check()
    with pytest.raises(ConfigError, match="has no scoreddocs; ids with scoreddocs below it: msma"):
        ScoredDocs(dataset="msmarco-passage").check()
    ScoredDocs(dataset="msmarco-passage/dev/small").check()  # reads nothing
    with pytest.raises(ConfigError, match="none of them is of a query and a document"):
        read(builder, data, shipped(monkeypatch, [("q1", "x", 1.0), ("r", "d1", 1.0)]))
    with pytest.raises(ConfigError, match="query q1, document d2: expected a finite score, found"):
        read(builder, data, shipped(monkeypatch, [("q1", "d2", float("nan"))]))


def test_ir_datasets_records_become_tuples(monkeypatch):
    dataset = QuerySet(dataset="msmarco-passage/dev/small").open()
    rows = [Scored("q1", "d1", "2.5"), Scored("q1", "d2", 1)]
    monkeypatch.setattr(dataset._data, "scoreddocs_iter", lambda: iter(rows), raising=False)
    assert list(dataset.scoreddocs()) == [("q1", "d1", 2.5), ("q1", "d2", 1.0)]
