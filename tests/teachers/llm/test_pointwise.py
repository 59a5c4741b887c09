"""Pointwise: numbers worked by hand, answers in text, drops."""

from __future__ import annotations

import math
import re

import pytest
from asked_model import ABC, judge

from raypipe.inference.llm.base import Answer, Prompt
from raypipe.teachers.llm.pointwise import Pointwise, log_odds
from raypipe.teachers.llm.task import RankingList


@pytest.mark.parametrize(
    ("logprobs", "value"),
    [
        ({"Yes": math.log(0.3), "No": math.log(0.1)}, math.log(3)),
        ({"Yes": -1000.0, "No": 0.0}, -1000.0),
        ({"Yes": 0.0, "No": -60.0}, 60.0),
        ({"Yes": 0.0, "No": -61.0}, 61.0),  # log P(Yes) is 0 for both
        ({"Yes": -3.0}, 50.0),
        ({"No": -3.0}, -50.0),
        ({"Yes": -math.inf, "No": -math.inf}, None),
        ({"Yes": math.nan, "No": -1.0}, None),
        (None, None),
    ],
)
def test_log_odds(logprobs, value):
    assert log_odds(logprobs) == (value if value is None else pytest.approx(value))


def passage(prompt: Prompt) -> str:
    return re.findall(r"^Passage: (.*)$", prompt.messages[0][1], re.M)[0]


def test_pointwise_from_log_probabilities():
    def answer(prompt):
        p = float(passage(prompt)) / 8
        return Answer("", {"Yes": math.log(p), "No": math.log(1 - p)})

    (row,), counts, prompts = judge(Pointwise(), answer, ABC)
    assert row["doc_ids"] == ["a", "b", "c"]
    assert row["values"] == pytest.approx([math.log(odds) for odds in (1 / 7, 1 / 3, 1)])
    assert counts["answers_from_text"] == 0 and counts["requests"] == 3
    assert counts["answers_clipped"] == 0
    assert all(p.choices == ("Yes", "No") for p in prompts)


def test_pointwise_from_text():
    texts = {"1": "No.", "2": "yes, it does", "4": "perhaps"}
    (row,), counts, _ = judge(Pointwise(), lambda p: Answer(texts[passage(p)]), ABC)
    assert (row["doc_ids"], row["values"]) == (["a", "b"], [0.0, 1.0])
    assert counts["answers_from_text"] == 3 and counts["answers_unparsable"] == 1
    assert counts["documents_without_value"] == 1


def test_pointwise_never_mixes_text_with_log_probabilities():
    def answer(prompt):
        return Answer("Yes", {"Yes": -1.0, "No": -1.0} if passage(prompt) == "1" else None)

    (row,), counts, _ = judge(Pointwise(), answer, ABC)
    assert row["doc_ids"] == ["a"] and row["values"] == pytest.approx([0.0])
    assert counts["answers_from_text"] == 0 and counts["documents_without_value"] == 2


def test_clipped_answers_are_counted():
    def answer(prompt):
        if passage(prompt) == "1":
            return Answer("", {"Yes": -0.1, "No": -9.0}, clipped=True)
        return Answer("", {"Yes": -0.1, "No": -9.0 if passage(prompt) == "2" else -math.inf})

    (row,), counts, _ = judge(Pointwise(), answer, ABC)
    assert row["values"] == pytest.approx([8.9, 8.9, 50.0])
    assert counts["answers_clipped"] == 2


def test_answers_cut_inside_their_thinking_are_counted_and_have_no_value():
    texts = {"1": "<think>The query", "2": "[THINK]Yes, it seems", "4": "<think>no</think>Yes"}
    (row,), counts, _ = judge(Pointwise(), lambda p: Answer(texts[passage(p)]), ABC)
    assert (row["doc_ids"], row["values"]) == (["c"], [1.0])
    assert (counts["answers_cut_in_thinking"], counts["answers_unparsable"]) == (2, 2)


def test_pointwise_failures():
    def answer(prompt):
        return Answer(error="down") if passage(prompt) == "2" else Answer("yes")

    (row,), counts, _ = judge(Pointwise(max_failed=0.4), answer, ABC)
    assert row["doc_ids"] == ["a", "c"] and counts["requests_failed"] == 1
    assert counts["answers_unparsable"] == 0 and counts["answers_from_text"] == 2
    with pytest.raises(RuntimeError, match=r"1 of 3 requests.*down"):
        judge(Pointwise(max_failed=0.3), answer, ABC)


def test_pointwise_instruction_and_room():
    _, _, prompts = judge(Pointwise(instruction="Judge it."), lambda _: Answer("yes"), ABC)
    assert prompts[0].messages[0][1].startswith("Judge it.\n\nPassage: 1\nQuery: what\n")
    long = RankingList("q", "why " * 300, ["a"], ["x " * 20])
    rows, counts, _ = judge(Pointwise(), lambda _: Answer("yes"), ABC, long, context=200)
    assert [len(row["doc_ids"]) for row in rows] == [3, 0]
    assert counts["documents_too_long"] == 1 and counts["documents_without_value"] == 1
