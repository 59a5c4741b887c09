"""Queries that are documents of their collection, as in ArguAna."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.candidates.without_self import WithoutSelf, without_self
from raypipe.commands.mine import run
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.records import CANDIDATES


def candidates(lists: dict[str, list[str]]) -> pa.Table:
    rows = [
        {
            "query_id": query_id,
            "doc_ids": docs,
            "ranks": list(range(1, len(docs) + 1)),
            "scores": [9.0 - place for place in range(len(docs))],
            "sources": [f"s-{d}" for d in docs],
        }
        for query_id, docs in lists.items()
    ]
    return pa.Table.from_pylist(rows, schema=CANDIDATES)


def test_the_query_leaves_and_ranks_count_anew():
    given_ = {"q1": ["a", "q1", "b"], "q2": ["q1", "c"], "q3": ["q3"], "q4": []}
    table, counts = without_self(candidates(given_), 2)
    assert table.to_pylist()[0] == {
        "query_id": "q1",
        "doc_ids": ["a", "b"],
        "ranks": [1, 2],
        "scores": [9.0, 7.0],
        "sources": ["s-a", "s-b"],
    }
    assert table["doc_ids"].to_pylist()[1:] == [["q1", "c"], [], []]
    assert counts == {
        "queries_among_documents": 2,
        "beyond_depth": 0,
        "candidates": 4,
        "queries_without_candidates": 2,
    }


@settings(deadline=None, max_examples=60, database=None)
@given(
    lists=st.dictionaries(st.sampled_from("abcd"), st.lists(st.sampled_from("abcdef"), max_size=6,
                                                            unique=True), max_size=4),
    depth=st.integers(1, 6),
)  # fmt: skip
def test_against_lists(lists, depth):
    table, counts = without_self(candidates(lists), depth)
    assert table.schema == CANDIDATES
    expected = {q: [d for d in docs if d != q][:depth] for q, docs in lists.items()}
    for row in table.to_pylist():
        assert row["doc_ids"] == expected[row["query_id"]]
        assert row["ranks"] == list(range(1, len(row["doc_ids"]) + 1))
        assert row["sources"] == [f"s-{d}" for d in row["doc_ids"]]
    assert counts["candidates"] + counts["beyond_depth"] + counts["queries_among_documents"] == sum(
        map(len, lists.values())
    )


SOURCES = {
    "bm25": "{type: bm25, depth: 4%s}",
    "trec_run": "{type: trec_run, paths: [/x.run], depth: 4%s}",
    "scored_docs": "{type: scored_docs, depth: 4%s}",
    "search_engine": "{type: search_engine, url: 'http://h:9200', index: i, "
    "request: {query: {match: {body: '{query}'}}}, depth: 4%s}",
    "dense": "{type: dense, backbone: BACKBONE, depth: 4%s}",
    "fused": "{type: fused, sources: {a: {type: bm25, depth: 9}, b: {type: bm25, depth: 7}}, "
    "depth: 4%s}",
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_can_leave_it_out(recipe, name, tiny_backbone):
    few = ["evaluation={depth: 4, validation_depth: 4}", "groups.negatives={type: top_k}"]

    def first_stage(more: str):
        text = SOURCES[name].replace("BACKBONE", str(tiny_backbone)) % more
        return load(Experiment, recipe, [f"candidates={text}", *few]).first_stage("test")

    plain, without = first_stage(""), first_stage(", exclude_query_id: true")
    assert not isinstance(plain, WithoutSelf) and isinstance(without, WithoutSelf)
    retrieved = [step.source.retrieved for step in (plain, without.candidates)]
    assert retrieved == [4, 5] and without.depth == 4
    assert without.name == f"{plain.name}-without-self"


@pytest.fixture
def argument_folder(tmp_path) -> Path:
    """Six arguments, each of which is a query; the relevant document answers it."""
    root = tmp_path / "arguments"
    (root / "qrels").mkdir(parents=True)
    words = ["apple", "bridge", "candle", "desert", "engine", "forest"]
    texts = {f"a{i}": f"{words[i]} {words[(i + 1) % 6]} speech" for i in range(6)}
    for name in ("corpus", "queries"):
        rows = [json.dumps({"_id": d, "text": t}) + "\n" for d, t in texts.items()]
        (root / f"{name}.jsonl").write_text("".join(rows))
    for split, numbers in (("train", (0, 1)), ("validation", (2, 3)), ("test", (4, 5))):
        judged = "".join(f"a{i}\ta{(i + 1) % 6}\t1\n" for i in numbers)
        (root / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return root


@pytest.mark.ray
def test_arguments_do_not_find_themselves(cluster, recipe, argument_folder):
    data = [
        f"data.{split}={{dataset: 'beir:{argument_folder}', split: {split}}}"
        for split in ("train", "validation", "test")
    ]
    given_ = ["candidates={type: bm25, depth: 3, exclude_query_id: true}", "teacher=null",
              "order=contrastive", "sweep.space={}", "groups.negatives={type: top_k, count: 2}",
              "evaluation={depth: 3, validation_depth: 3}"]  # fmt: skip
    said: list[str] = []
    mined = run(load(Experiment, recipe, [*data, *given_]), said.append)
    for role in ("test", "validation"):
        artifact = mined.artifacts[f"{role} candidates"]
        for row in artifact.table().to_pylist():
            assert len(row["doc_ids"]) == 3 and row["query_id"] not in row["doc_ids"]
        assert artifact.counts["queries_among_documents"] == 2
    negatives = mined.artifacts["negatives of contrastive"].table().to_pylist()
    assert negatives and all(row["query_id"] not in row["doc_ids"] for row in negatives)
    assert any("2 queries among documents" in line for line in said)
