"""Training files of other libraries: what each form says, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.config import ConfigError
from raypipe.datasets.training_forms import FileEntry
from raypipe.datasets.training_reader import form_of, read_groups

Q, P, N, M = "what is four", "four is a number", "one is a number", "two is a number"
PASSAGES = [{"docid": i, "title": t, "text": x} for i, t, x in (("4", "", P), ("1", "One", "is a"))]

# name, lines, ids or texts of (query, documents), positives, scores
FORMS: list[tuple[str, Any, list[Any], int, list[float] | None]] = [
    ("FlagEmbedding", {"query": Q, "pos": [P], "neg": [N, M]}, [Q, P, N, M], 1, None),
    (
        "FlagEmbedding",
        {"query": Q, "pos": [P, N], "neg": [M], "pos_scores": [0.9, 0.5], "neg_scores": [0.2]},
        [Q, P, N, M],
        2,
        [0.9, 0.5, 0.2],
    ),
    (
        "Tevatron",
        {
            "query_id": "10",
            "query": Q,
            "positive_passages": PASSAGES[:1],
            "negative_passages": PASSAGES[1:],
        },
        [("10", Q), ("4", P), ("1", "One is a")],
        1,
        None,
    ),
    (
        "Tevatron's ids",
        {"query_id": 10, "positive_document_ids": [4], "negative_document_ids": ["1", "2"]},
        [("10", None), ("4", None), ("1", None), ("2", None)],
        1,
        None,
    ),
    (
        "Tevatron's distillation",
        {"query_id": "10", "query": Q, "passages": [P, N], "scores": [2.5, -1]},
        [("10", Q), P, N],
        1,
        [2.5, -1.0],
    ),
    (
        "sentence-transformers columns",
        {"anchor": Q, "positive": P, "negative_1": N, "negative_2": M},
        [Q, P, N, M],
        1,
        None,
    ),
    ("sentence-transformers columns", {"query": Q, "positive": P}, [Q, P], 1, None),
    (
        "sentence-transformers lists",
        {"query": Q, "docs": [N, P, M], "labels": [0, 1, 0]},
        [Q, P, N, M],
        1,
        None,
    ),
    (
        "sentence-transformers lists",
        {"query": Q, "docs": [N, P, M], "scores": [0.5, 3, 1]},
        [Q, P, N, M],
        1,
        [3.0, 0.5, 1.0],
    ),
]
IDS_ONLY: list[tuple[str, Any, list[str], int, list[float] | None]] = [
    (
        "msmarco-hard-negatives",
        {"qid": 10, "pos": [4], "neg": {"bm25": [1, 2], "tas-b": [2, 3]}},
        ["10", "4", "1", "2", "3"],
        1,
        None,
    ),
    ("ColBERT triples", [10, 4, 1], ["10", "4", "1"], 1, None),
    ("ColBERT triples", ["10", "4", "1", "2"], ["10", "4", "1", "2"], 1, None),
    ("ColBERT n-way", [10, [4, 12.5], [1, 3.25]], ["10", "4", "1"], 1, [12.5, 3.25]),
]


def entry(value: Any, ids: bool) -> FileEntry:
    if isinstance(value, tuple):
        return FileEntry(*value)
    return FileEntry(value, None) if ids else FileEntry(None, value)


def lines(path: Path, *values: Any) -> Path:
    text = "\ufeff" + "".join(f"{json.dumps(value)}\r\n\n" for value in values)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "train"])
@pytest.mark.parametrize("case", [*FORMS, *IDS_ONLY], ids=lambda case: case[0])
def test_json_lines_of_every_form(tmp_path, name, case):
    form, line, named, positives, scores = case
    path = lines(tmp_path / name, line, line)
    query, *docs = (entry(value, case in IDS_ONLY) for value in named)
    found = list(read_groups(path))
    assert len(found) == 2 and found[1].place == f"{path}:3"
    assert (found[0].query, list(found[0].docs)) == (query, docs)
    assert (found[0].positives, found[0].scores) == (positives, scores)
    told = form_of(path)
    assert told is not None and told.name == form
    assert told.has_texts == all(value.text is not None for value in (query, *docs))
    assert told.has_scores == (scores is not None)
    assert told.is_triples == (positives == 1 and len(docs) == 2 and scores is None)


@pytest.mark.parametrize("case", FORMS, ids=lambda case: case[0])
def test_tables_hold_the_same(tmp_path, case):
    rows = [case[1], case[1]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    (tmp_path / "parts").mkdir()
    for number, row in enumerate(rows):
        pq.write_table(
            pa.Table.from_pylist([row]), tmp_path / "parts" / f"train-{number}-of-2.parquet"
        )
    expected = [(g.query, list(g.docs), g.positives, g.scores) for g in read_groups(
        lines(tmp_path / "t.jsonl", *rows)
    )]  # fmt: skip
    for name in ("t.parquet", "parts"):
        found = read_groups(tmp_path / name)
        assert [(g.query, list(g.docs), g.positives, g.scores) for g in found] == expected


def test_texts_parted_by_tabs(tmp_path):
    path = tmp_path / "triples.train.small.tsv"
    path.write_text(f"{Q}\t{P}\t{N}\nshort\t{P}\t{M}\n")
    assert form_of(path) == ("text triples", True, True, False)
    assert [g.docs[1].text for g in read_groups(path)] == [N, M]
    path.write_text(f"query\tpositive\tnegative\n{Q}\t{P}\t{N}\n")
    told = form_of(path)
    assert told is not None and told.name == "sentence-transformers columns"
    assert [g.query.text for g in read_groups(path)] == [Q]


@pytest.mark.parametrize(
    "text", ["10\t4\t1\n", "10 4 1\n", "1.5\t0.5\t10\t4\t1\n", "", "q\td\ta b\n"]
)
def test_lines_of_ids_are_left_to_triples(tmp_path, text):
    path = tmp_path / "ids.tsv"
    path.write_text(text)
    assert form_of(path) is None and form_of(tmp_path / "none.tsv") is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"query": {"qid": "1"}, "candidates": []}, "ranked lists of rank_llm or RankGPT: name th"),
        ({"messages": []}, "chats, which have no documents to rank"),
        ({"_id": "1", "text": "a"}, "documents or queries: name them in a data set"),
        ({"query": "a", "text": "b", "label": 1}, "pairs with a label .*docs.. and labels"),
        ([1, [2, 0.5, [[3, -0.1]]]], "more than a score .PairDistill."),
        ({"a": 1, "b": 2}, r"no known form .the names a, b.; what is read: query/pos/neg .FlagEmb"),
        (3, "no known form .3."),
    ],
)
def test_what_a_file_looks_like(tmp_path, line, words):
    path = lines(tmp_path / "t.jsonl", line)
    with pytest.raises(ConfigError, match=rf"t\.jsonl:1: found .*{words}"):
        form_of(path)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"query": Q, "pos": P, "neg": [3]}, "expected text, found 3"),
        ({"query": Q, "pos": {}, "neg": []}, "expected a list, found {}"),
        ({"query": None, "pos": [P], "neg": []}, "expected text, found None"),
        ({"pos": [P], "neg": []}, "'query'"),
        (
            {"query": Q, "pos": [P], "neg": [], "pos_scores": [1, 2], "neg_scores": []},
            "expected 1 pos_scores, found 2",
        ),
        (
            {"query": Q, "pos": [P], "neg": [], "pos_scores": [True], "neg_scores": []},
            "expected a number in pos_scores, found True",
        ),
    ],
)
def test_a_line_of_another_form_is_named(tmp_path, second, words):
    path = lines(tmp_path / "t.jsonl", FORMS[0][1], second)
    with pytest.raises(ConfigError, match=rf"t\.jsonl:3: expected FlagEmbedding as in .*{words}"):
        list(read_groups(path))


def test_lines_that_are_no_json(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps([10, 4, 1]) + "\n[10, 4\n")
    with pytest.raises(ConfigError, match=r"t\.jsonl:2: expected one JSON object per line"):
        list(read_groups(path))
    path.write_text(json.dumps([10, 4, 1]) + "\n[10, 4]\n")
    with pytest.raises(ConfigError, match=r"t\.jsonl:2: .*a positive and a negative, found 2 ids"):
        list(read_groups(path))
