"""What the steps of candidate sources put into their digests: artifacts on disk depend on it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hub_models import as_if_on_the_hub
from pydantic import TypeAdapter

from raypipe.candidates import Source
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.storage.artifacts import Step

SETS = QuerySet(dataset="pydoc:numpy", split="test")
A = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
B = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"
BM25 = {"class": "Bm25Options", "version": 1, "stopwords": "en", "b": 0.75, "method": "lucene"}
ENCODER = {
    **{"class": "BiEncoder", "version": 1, "pooling": "auto", "normalize": True},
    **{"max_length": 256, "precision": "fp32"},
}
HNSW = {"class": "HnswIndex", "version": 1, "type": "hnsw", "neighbours": 32}


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """Files `a` and `b` in the working directory; every model is on the hub."""
    as_if_on_the_hub(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / name).write_text(name)


def first(source: dict[str, Any]) -> Step:
    config: Any = TypeAdapter(Source).validate_python(source)
    step: Step = config.candidates(Collection(SETS), Queries(SETS, False), "fp32")
    return step


def specs(step: Step, *path: str) -> list[dict[str, Any]]:
    """Of the step and of its inputs along the path."""
    below = specs(step.inputs()[path[0]], *path[1:]) if path else []
    return [dict(step.spec()), *below]


def test_bm25():
    plain = first({"type": "bm25", "depth": 7, "k1": 0.9, "stemmer": None, "shard_docs": 5})
    terms = {"class": "TermOptions", "version": 1, "stemmer": None, "stopwords": "en"}
    assert specs(plain, "index", "terms") == [
        {"depth": 7},
        {**BM25, "stemmer": None, "k1": 0.9},
        terms,
    ]
    assert plain.path.startswith("candidates/bm25-pydoc-numpy-test-")
    without = first({"type": "bm25", "depth": 7, "exclude_query_id": True})
    assert specs(without, "candidates") == [{"depth": 7}, {"depth": 8}]


def test_dense():
    dense = {"type": "dense", "backbone": "b", "depth": 7, "query_prefix": "q: "}
    plain = first({**dense, "name": "d", "doc_prefix": "p: "})
    exact = {"class": "ExactIndex", "version": 1, "type": "exact"}
    expected = {"depth": 7, "source": "d", "index": exact}
    assert specs(plain, "doc_vectors") == [expected, {**ENCODER, "prefix": "p: "}]
    assert specs(plain, "query_vectors")[1] == {**ENCODER, "prefix": "q: "}
    assert plain.name == "d-pydoc-numpy-test"
    graph = first({**dense, "index": {"type": "hnsw", "ef_search": 10}})
    built = {**HNSW, "ef_construction": 200}
    expected = {"depth": 7, "source": "dense", "index": {**built, "ef_search": 10}}
    assert specs(graph, "index") == [expected, built]
    assert specs(first({**dense, "exclude_query_id": True}), "candidates")[1]["depth"] == 8


def test_trec_run():
    run = {"type": "trec_run", "paths": ["a", "b"], "depth": 7, "name": "x y"}
    expected = {"files": [A, B], "depth": 7, "source": "x y"}
    assert specs(first(run)) == [expected]
    assert first(run).name == "x-y-pydoc-numpy-test"
    without = first({**run, "exclude_query_id": True})
    assert specs(without, "candidates") == [{"depth": 7}, {**expected, "depth": 8}]


def test_rankgpt_lists():
    lists = first({"type": "rankgpt_lists", "path": "a", "depth": 7, "name": "x"})
    assert specs(lists) == [{"format": "rankgpt", "files": [A], "depth": 7, "source": "x"}]
    assert lists.name == "x-pydoc-numpy-test"


@pytest.mark.parametrize("dataset", [None, "some/dataset"])
def test_scored_docs(dataset, monkeypatch):
    opened = SimpleNamespace(name="n", scoreddocs=lambda: None, identity=lambda: "its identity")
    monkeypatch.setattr(QuerySet, "open", lambda self: opened)
    source = {"type": "scored_docs", "dataset": dataset, "depth": 7, "name": "x"}
    expected = {"scoreddocs": "its identity", "depth": 7, "source": "x"}
    assert specs(first(source)) == [expected]
    without = first({**source, "exclude_query_id": True})
    assert specs(without, "candidates") == [{"depth": 7}, {**expected, "depth": 8}]


def test_fused():
    fused = {
        "type": "fused",
        "sources": {"x": {"type": "trec_run", "paths": ["a"], "depth": 9}, "y": {"type": "bm25"}},
        "weights": {"y": 2},
        "depth": 7,
        "method": {"type": "reciprocal_rank", "k": 30},
    }
    method = {"class": "ReciprocalRank", "version": 1, "type": "reciprocal_rank", "k": 30.0}
    expected = {"members": ["x", "y"], "method": method, "weights": [1.0, 2.0], "depth": 7}
    member = {"files": [A], "depth": 9, "source": "run"}
    assert specs(first(fused), "member x") == [expected, member]
    assert specs(first(fused), "member y")[1] == {"depth": 100}
    assert list(first(fused).inputs()) == ["queries", "member x", "member y"]
    without = first({**fused, "exclude_query_id": True})
    assert specs(without, "candidates") == [{"depth": 7}, {**expected, "depth": 8}]
