"""RankGPT's lists as candidates."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from six_documents import GOOD, MANY, json_lines, passages, query_order, six_lists

from raypipe.candidates.rankgpt import RankGptLists
from raypipe.config import ConfigError
from raypipe.inference.lists import Lists
from raypipe.records import CANDIDATES as CANDIDATE_SCHEMA
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder


@pytest.fixture(scope="module")
def lists(tmp_path_factory) -> Lists:
    return six_lists(tmp_path_factory.mktemp("root") / "six")


@pytest.fixture(scope="module")
def builder(tmp_path_factory) -> Builder:
    return Builder(Store(str(tmp_path_factory.mktemp("storage"))))


def shown_lists(builder, lists, path: Path, content: list[Any] | bytes, depth: int = 3):
    path.write_bytes(content if isinstance(content, bytes) else json_lines(content))
    source = RankGptLists(path=str(path), depth=depth, name="theirs")
    return builder.get(source.candidates(lists.collection, lists.queries, "fp32"))


def ranked(rank: bytes) -> bytes:
    """A list whose second rank is this."""
    hits = b'{"docid": "d0", "rank": 1}, {"docid": "d1", "rank": ' + rank + b"}"
    return b'{"qid": "q1", "hits": [' + hits + b"]}\n"


def test_rankgpt_lists_are_candidates_and_every_drop_is_counted(builder, lists, tmp_path):
    content = [
        {"query_id": "q8", "retrieved_passages": passages("d0", "d1")},
        {"query_id": "q2", "retrieved_passages": passages("dX", "d1", "d0", "d1", "d5", "d4")},
    ]
    artifact = shown_lists(builder, lists, tmp_path / "lists.jsonl", content)
    rows = {row.pop("query_id"): row for row in artifact.table().to_pylist()}
    assert artifact.table().schema == CANDIDATE_SCHEMA
    assert list(rows) == query_order(artifact)
    assert rows["q2"] == {
        "doc_ids": ["d1", "d0"],  # the first three, less the one that is not in the collection
        "ranks": [1, 2],
        "scores": [-1.0, -2.0],
        "sources": ["theirs", "theirs"],
    }
    assert rows["q1"]["doc_ids"] == rows["q3"]["doc_ids"] == []
    assert artifact.counts == {
        "lists": 2,
        "lists_other_queries": 1,
        "duplicates": 1,
        "beyond_depth": 2,
        "unknown_documents": 1,
        "candidates": 2,
        "queries_without_candidates": 2,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([GOOD, GOOD], "line 2: query q1 has a second list; keep one"),
        ([{**GOOD, "query_id": "7"}], "none of its 1 lists has a query and a document of the data"),
        ([{**GOOD, "retrieved_passages": ["D0"]}], "none of its 1 lists has a query and a documen"),
        (gzip.compress(MANY, mtime=0)[:-9], "expected a complete gzip file"),
        (b'{"query_id": "\xff"}\n', "line 1: expected JSON"),
        (ranked(b"true"), "line 1: expected a number as every rank, found True; correct it"),
        (ranked(b"NaN"), "line 1: expected a number as every rank, found nan"),
        (ranked(b"-Infinity"), "line 1: expected a number as every rank, found -inf"),
        (ranked(b'"2"'), "line 1: expected a number as every rank, found '2'"),
        (ranked(b"null"), "line 1: expected a number as every rank, found None"),
        (ranked(b"9" * 10_000), "line 1: expected JSON, found a number of thousands of digits"),
        (
            b'{"query_id": "q1", "query_id": "q2"}',
            "line 1: expected JSON, found the key 'query_id' t",
        ),
        (b'{"hits":' * 5000, "line 1: expected JSON, found too many levels"),
        ([{"qid": True, "hits": ["d0"]}], "line 1: expected text or a whole number as every id"),
        (
            [{"qid": "q1", "hits": ["d" * 5000]}],
            "line 1: expected an id of at most 4,096 characters",
        ),
    ],
)
def test_rankgpt_lists_that_are_refused(builder, lists, tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        shown_lists(builder, lists, tmp_path / "lists.jsonl", content)


def test_ids_and_ranks_may_be_numbers(builder, lists, tmp_path):
    content = b'{"qid": "q1", "hits": [{"docid": "d0", "rank": 2.5}, {"docid": "d1", "rank": 2}]}\n'
    artifact = shown_lists(builder, lists, tmp_path / "lists.jsonl", content)
    assert {row["query_id"]: row["doc_ids"] for row in artifact.table().to_pylist()}["q1"] == [
        "d1",
        "d0",
    ]
