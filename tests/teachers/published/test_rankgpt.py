"""RankGPT's lists with a model's answers, as orders of documents."""

from __future__ import annotations

import gzip
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from six_documents import GOOD, MANY, json_lines, passages, said

from raypipe.config import ConfigError
from raypipe.records import TEACHER
from raypipe.storage import files
from raypipe.teachers.published import rankgpt as module
from raypipe.teachers.published.rankgpt import RankGptFile


@pytest.fixture
def rankgpt(builder, lists, tmp_path):
    def build(lines: list[Any] | bytes, answers: Any, unparsable: str = "drop"):
        here, there = tmp_path / "lists.jsonl", tmp_path / "answers.json"
        here.write_bytes(lines if isinstance(lines, bytes) else json_lines(lines))
        text = answers if isinstance(answers, str | bytes) else json.dumps(answers)
        there.write_bytes(text if isinstance(text, bytes) else text.encode())
        files = {"lists": str(here), "permutations": str(there)}
        teacher = RankGptFile(**files, unparsable=unparsable)
        artifact = builder.get(teacher.scores(lists, "fp32"))
        assert artifact.table().schema == TEACHER
        return said(artifact), artifact.counts

    return build


def test_rankgpt_orders_repairs_and_drops(rankgpt):
    lines = [
        {"query_id": "q8", "retrieved_passages": passages("d0", "d1")},
        {"query_id": "q1", "retrieved_passages": passages("d3", "dX", "d1", "d0", "d4")},
        {"query_id": "q2", "retrieved_passages": passages("d0", "d2", "d1")},
    ]
    answers = ["junk", "[2] > [4] > [4] > [9] > [1]", "I cannot."]
    values, counts = rankgpt(lines, answers)
    # positions 2 4 1, then 3 and 5: dX (not in the collection) d0 d3 d1 d4
    assert values == {"q1": {"d0": 1.0, "d3": 2.0, "d1": 3.0, "d4": 4.0}, "q2": {}, "q3": {}}
    expected = {
        "lists": 3,
        "lists_other_queries": 1,
        "permutations_repaired": 1,
        "permutations_unparsable": 1,
        "ids_repeated": 1,
        "ids_out_of_range": 1,
        "ids_missing": 2,
        "duplicates": 0,
        "unknown_documents": 1,
        "queries_without_list": 2,
    }
    assert counts == expected
    values, counts = rankgpt(lines, answers, "keep")
    assert values["q2"] == {"d0": 1.0, "d2": 2.0, "d1": 3.0}
    assert counts == {**expected, "queries_without_list": 1}


@pytest.mark.parametrize(
    "line",
    [
        {
            "query_id": "q1",
            "retrieved_passages": [{"docid": "d5", "rank": 7}, *passages("d3", "d4")],
        },
        {"qid": "q1", "retrieved_passages": [{"docid": d} for d in ("d3", "d4", "d5")]},
        {"qid": "q1", "hits": passages("d3", "d4", "d5", start=0)},
        {"query": "?", "hits": [{"qid": "q1", "docid": d} for d in ("d3", "d4", "d5")]},
        {"query_id": "q1", "retrieved_passages": ["d3", "d4", "d5"]},
    ],
)
def test_rankgpt_lists_in_their_variants(rankgpt, line):
    values, counts = rankgpt([line], ["[3] > [1] > [2]"])
    assert values["q1"] == {"d5": 1.0, "d3": 2.0, "d4": 3.0}
    assert counts["permutations_repaired"] == 0


@pytest.mark.parametrize("answers", ['"[2] > [1]"\n"[1] > [2]"\n', '["[2] > [1]", "[1] > [2]"]'])
def test_rankgpt_answers_in_a_list_or_by_line(rankgpt, answers):
    lines = [{"query_id": q, "retrieved_passages": ["d0", "d1"]} for q in ("q1", "q2")]
    values, _ = rankgpt(lines, answers)
    assert values == {"q1": {"d1": 1.0, "d0": 2.0}, "q2": {"d0": 1.0, "d1": 2.0}, "q3": {}}


def test_rankgpt_a_document_listed_twice_keeps_its_best_place(rankgpt):
    line = {"query_id": "q1", "retrieved_passages": ["d0", "d1", "d0"]}
    values, counts = rankgpt([line], ["[3] > [2] > [1]"])
    assert values["q1"] == {"d0": 1.0, "d1": 2.0}
    assert counts["duplicates"] == 1


@pytest.mark.parametrize(
    ("lines", "answers", "message"),
    [
        ([GOOD], ["[1]", "[2]"], "has 1 lists, .* has 2 permutations"),
        ([GOOD, {**GOOD, "query_id": "q2"}], ["[1]"], "has 2 lists, .* has 1 permutations"),
        ([GOOD, GOOD], ["[1]", "[2]"], "line 2: query 'q1' has two lists"),
        ([{**GOOD, "query_id": "7"}], ["[1]"], "none of its 1 lists .* it has '7', the data set"),
        (
            [{**GOOD, "retrieved_passages": ["D0", "D1"]}],
            ["[1] > [2]"],
            "none of its 2 documents is in the collection; query 'q1' has 'D0', the collection 'd",
        ),
        ([[1]], ["[1]"], "line 1: expected an object"),
        ([{"query_id": "q1"}], ["[1]"], "line 1: expected a list retrieved_passages"),
        ([{"hits": ["d0"]}], ["[1]"], "line 1: expected a query_id"),
        ([{"qid": "q1", "hits": [{"rank": 1}]}], ["[1]"], "expected a docid in every passage"),
        (
            [{"qid": "q1", "hits": [{"docid": "d0", "rank": 1}, {"docid": "d1"}]}],
            ["[1]"],
            "line 1: expected a number as every rank",
        ),
        ([GOOD], [["[1]"]], "expected a JSON list of strings"),
        ([GOOD], {"a": "[1]"}, "expected a JSON list of strings"),
        ([GOOD], "[1] > [2]\n", "line 1: expected JSON"),
    ],
)
def test_rankgpt_files_that_are_refused(rankgpt, lines, answers, message):
    with pytest.raises(ConfigError, match=message):
        rankgpt(lines, answers)


@pytest.mark.parametrize(
    ("lines", "answers", "message"),
    [
        (
            gzip.compress(MANY, mtime=0)[:-9],
            ["[1]"],
            r"lists\.jsonl: expected a complete gzip file",
        ),
        (
            [GOOD],
            gzip.compress(b'["[1]"]', mtime=0)[:-9],
            r"answers\.json: expected a complete gzip file",
        ),
        (json_lines([GOOD]) + b'{"query_id": "q\xff"}\n', ["[1]"], "line 2: expected JSON.*utf-8"),
        ([GOOD], b'"[1]"\n"[\xff]"\n', r"answers\.json, line 2: expected JSON, found .*utf-8"),
        ([GOOD], b'["[1]", "\xff"]', r"answers\.json, line 1: expected JSON, found .*utf-8"),
    ],
)
def test_rankgpt_files_that_are_damaged(rankgpt, lines, answers, message):
    with pytest.raises(ConfigError, match=message):
        rankgpt(lines, answers)


def test_rankgpt_files_may_be_packed(rankgpt):
    values, _ = rankgpt(gzip.compress(json_lines([GOOD])), gzip.compress(b'["[2] > [1]"]'))
    assert values["q1"] == {"d1": 1.0, "d0": 2.0}


def test_no_more_than_the_limit_of_a_packed_file_is_read(monkeypatch):
    class Endless:
        def read(self, size: int) -> bytes:
            return b"x" * size  # of the whole, -1, none

    monkeypatch.setattr(files, "open_bytes", lambda path: nullcontext(Endless()))
    monkeypatch.setattr(module, "LARGEST_FILE", 1000)
    with pytest.raises(ConfigError, match="expected answers of at most 1,000 bytes, found more"):
        module.read_answers(Path("answers.json"))


def test_rankgpt_answers_without_any_order_are_refused(rankgpt):
    with pytest.raises(ConfigError, match="none of the 1 answers for queries of the data set has"):
        rankgpt([GOOD], ["I cannot."])


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (b"[" * 50_000, "line 1: expected JSON, found too many levels of lists and objects"),
        (b"9" * 10_000, "line 1: expected JSON, found a number of thousands of digits"),
        (
            gzip.compress(b'["' + b"1" * 10_000_000),
            "expected answers of at most 1,000 bytes, found",
        ),
    ],
)
def test_rankgpt_answers_that_are_bombs(rankgpt, monkeypatch, answers, message):
    monkeypatch.setattr(module, "LARGEST_FILE", 1000 if answers[:2] == b"\x1f\x8b" else 10**6)
    with pytest.raises(ConfigError, match=message) as error:
        rankgpt([GOOD], answers)
    assert len(str(error.value)) < 400
