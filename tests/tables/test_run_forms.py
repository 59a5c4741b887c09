"""Runs as MS MARCO, ColBERT and rank_llm write them, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypipe.config import ConfigError
from raypipe.tables.trec_run import read_trec_run


def rank_llm(query_id: str, doc_ids: list[str], scores: list[float | None]) -> str:
    docs = zip(doc_ids, scores, strict=True)
    found = [{"docid": d, "score": s, "doc": {"contents": f"text of {d}"}} for d, s in docs]
    return json.dumps({"query": {"text": "what", "qid": query_id}, "candidates": found})


MSMARCO = "10\t4\t1\n10\t1\t2\n11\t5\t1\n"
RESULTS = [rank_llm("10", ["4", "1"], [9.5, 8.5]), rank_llm("11", ["5"], [0.5])]


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        (MSMARCO, [[-1, -2], [-1]]),
        ("\ufeff" + MSMARCO.replace("\n", "\r\n"), [[-1, -2], [-1]]),
        ("10 1 2 20.1\n10 4 1 21.3\n11 5 1 -3\n", [[21.3, 20.1], [-3]]),
        ("\n".join(RESULTS), [[9.5, 8.5], [0.5]]),
        ("[" + ",\n".join(RESULTS) + "]", [[9.5, 8.5], [0.5]]),
        ("\n".join(r.replace("8.5", "null") for r in RESULTS), [[-1, -2], [0.5]]),
    ],
)
def test_every_form_is_one_table(tmp_path: Path, text: str, scores):
    path = tmp_path / "some.run"
    path.write_text(text)
    table, counts = read_trec_run(path, source="run")
    assert table["query_id"].to_pylist() == ["10", "11"]
    assert table["doc_ids"].to_pylist() == [["4", "1"], ["5"]]
    assert table["ranks"].to_pylist() == [[1, 2], [1]]
    found = [score for row in table["scores"].to_pylist() for score in row]
    assert found == pytest.approx([score for row in scores for score in row])
    assert (counts["lines"], counts["kept"]) == (3, 3)
    wanted, counts = read_trec_run(path, ["11"])
    assert wanted["doc_ids"].to_pylist() == [["5"]]
    assert (counts["lines"], counts["other_queries"]) == (3, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10 0 4 1\n11 0 5 1\n", r"line 1: expected a run, .* looks like judgements .*as qrels"),
        ("10 4 17\n10 4 9\n", r"no ranks from 1 on, each once: triples are named as groups\.trip"),
        ("10 4 1\n10 5 1\n", "no ranks from 1 on, each once"),
        ("10 4 0.75\n", "without ranks are read by teacher mono_scores"),
        ("10 4 1\n10 5 1 2.5\n", r"line 2: expected three columns \(query_id doc_id rank\)"),
        ("10 4 1 2.5\n10 5 x 2.5\n", "line 2: expected an integer rank and a score"),
        ('{"query": {"qid": "1"}}\n', r"line 1: expected a list retrieved_passages, found .*query"),
        ('{"query": {"text": "a"}, "candidates": [{"docid": 1}]}\n', "expected a query_id"),
        ('{"qid": 1, "candidates": [{"docid": 1, "score": "9"}]}\n', "a number as every score"),
        ('{"qid": 1, "candidates": [{"docid": 1, "score": 1e39}]}\n', "scores within float32"),
        ('{"qid": 1\n', "line 1: expected JSON"),
    ],
)
def test_what_is_no_run(tmp_path: Path, text: str, words: str):
    path = tmp_path / "some.run"
    path.write_text(text)
    with pytest.raises((ConfigError, ValueError), match=words):
        read_trec_run(path)
