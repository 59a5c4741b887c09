"""Pairwise: numbers worked by hand, answers in text, drops."""

from __future__ import annotations

import math
import re

import pytest
from asked_model import ABC, judge
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.inference.llm.base import Answer, Prompt
from raypipe.teachers.llm.pairwise import Pairwise, first_wins, mean_wins, pairs_of
from raypipe.teachers.llm.task import RankingList


def shown(prompt: Prompt) -> tuple[str, str]:
    ((_, content),) = prompt.messages
    return tuple(re.findall(r"^Passage [AB]: (.*)$", content, re.M))


def bradley(bias: float = 0.0):
    """P(A) = a / (a + b) with passages as strengths; `bias` favours A, in log-odds."""

    def answer(prompt: Prompt) -> Answer:
        a, b = (math.log(float(text)) for text in shown(prompt))
        return Answer("A", {"A": a + bias - 7, "B": b - 7})  # -7: not normalised

    return answer


def test_pairs_of():
    assert pairs_of(4, 2) == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    assert pairs_of(3, 5) == [(0, 1), (0, 2), (1, 2)]
    assert pairs_of(1, 5) == pairs_of(0, 5) == []
    assert len(pairs_of(100, 5)) == 485


@pytest.mark.parametrize("both", [False, True])
def test_probabilities_and_means(both):
    """1:2 is 1/3, 1:4 is 1/5, 2:4 is 1/3. Means: 4/15, (2/3 + 1/3)/2, (4/5 + 2/3)/2."""
    (row,), counts, prompts = judge(Pairwise(both_orders=both), bradley(), ABC)
    assert row["doc_ids"] == ["a", "b", "c"]
    assert row["first"] == [0, 0, 1] and row["second"] == [1, 2, 2]
    assert row["probabilities"] == pytest.approx([1 / 3, 1 / 5, 1 / 3])
    assert row["values"] == pytest.approx([4 / 15, 1 / 2, 11 / 15])
    assert len(prompts) == (6 if both else 3) == counts["requests"]
    assert counts["comparisons"] == 3 and counts["orders_that_disagree"] == 0
    assert all(p.choices == ("A", "B") for p in prompts)


def test_both_orders_take_out_most_of_a_bias_and_show_it():
    """A bias of e to A: P(A) is e/(e+2) = .576 and, swapped, 2e/(2e+1) = .845."""
    (row,), counts, prompts = judge(
        Pairwise(), bradley(1.0), RankingList("q", "w", *[["a", "b"], ["1", "2"]])
    )
    e = math.e
    assert [shown(p) for p in prompts] == [("1", "2"), ("2", "1")]
    assert row["probabilities"] == pytest.approx([(e / (e + 2) + 1 - 2 * e / (2 * e + 1)) / 2])
    assert counts["orders_that_disagree"] == 1
    (biased,), counts, _ = judge(Pairwise(both_orders=False), bradley(1.0), ABC)
    assert biased["probabilities"][0] == pytest.approx(e / (e + 2)) and counts["requests"] == 3
    assert counts["orders_that_disagree"] == 0


def test_answers_in_text():
    """A model that always says the larger number; one that always says A is undecided."""

    def larger(prompt):
        a, b = map(int, shown(prompt))
        return Answer("Passage A" if a > b else "Output: B.")

    (row,), counts, _ = judge(Pairwise(), larger, ABC)
    assert row["probabilities"] == [0, 0, 0] and row["values"] == [0, 0.5, 1]
    assert counts["answers_from_text"] == 6 and counts["orders_that_disagree"] == 0
    (row,), counts, _ = judge(Pairwise(), lambda _: Answer("A"), ABC)
    assert row["probabilities"] == [0.5] * 3 and counts["orders_that_disagree"] == 3


def test_a_comparison_without_an_answer_is_dropped_with_both_orders():
    """Document a (strength 1) can never be judged: it leaves the row, positions move up."""

    def answer(prompt):
        return Answer("neither") if "1" in shown(prompt)[:1] else bradley()(prompt)

    (row,), counts, _ = judge(Pairwise(), answer, ABC)
    assert row["doc_ids"] == ["b", "c"]
    assert (row["first"], row["second"]) == ([0], [1])
    assert row["values"] == pytest.approx([1 / 3, 2 / 3])
    assert counts["comparisons"] == 1 and counts["comparisons_dropped"] == 2
    assert counts["answers_unparsable"] == 2 and counts["documents_without_value"] == 1


def test_failed_requests_are_dropped_or_stop_the_chunk():
    def answer(prompt):
        return Answer(error="500: boom") if shown(prompt) == ("1", "2") else bradley()(prompt)

    (row,), counts, _ = judge(Pairwise(max_failed=0.2), answer, ABC)
    assert row["first"] == [0, 1] and row["second"] == [2, 2]
    assert counts["requests_failed"] == 1 and counts["answers_unparsable"] == 0
    with pytest.raises(RuntimeError, match=r"1 of 6 requests.*500: boom"):
        judge(Pairwise(), answer, ABC)


def test_several_lists_keep_their_own_pairs():
    two = RankingList("r", "w", ["x", "y"], ["3", "1"])
    one = RankingList("s", "w", ["z"], ["3"])
    rows, counts, _ = judge(Pairwise(), bradley(), ABC, one, two)
    assert [row["query_id"] for row in rows] == ["q", "s", "r"]
    assert rows[1] == {**rows[1], "doc_ids": [], "values": [], "first": [], "probabilities": []}
    assert rows[2]["values"] == pytest.approx([0.75, 0.25])
    assert counts["documents_without_value"] == 1


def test_a_pair_without_room_is_counted():
    long = RankingList("q", "why " * 300, ["a", "b"], ["x " * 20, "y " * 20])
    (row,), counts, prompts = judge(Pairwise(), bradley(), long, context=200)
    assert row["doc_ids"] == [] and prompts == []
    assert counts["comparisons_too_long"] == counts["comparisons_dropped"] == 1


@pytest.mark.parametrize(
    ("logprobs", "p"),
    [
        ({"A": -1.0, "B": -1.0}, 0.5),
        ({"A": math.log(0.6), "B": math.log(0.2)}, 0.75),
        ({"A": -1.0}, 1.0),
        ({"A": -2000.0, "B": -1.0}, 0.0),
        ({}, None),
        ({"A": math.nan, "B": -1.0}, None),
    ],
)
def test_first_wins(logprobs, p):
    assert first_wins(logprobs, "B") == (p if p is None else pytest.approx(p))


@settings(deadline=None, max_examples=50, database=None)
@given(st.integers(2, 9), st.integers(1, 9), st.randoms())
def test_mean_wins_against_a_naive_table(n, neighbours, rng):
    pairs = {pair: rng.random() for pair in pairs_of(n, neighbours)}
    table = {**pairs, **{(j, i): 1 - p for (i, j), p in pairs.items()}}
    for i, mean in enumerate(mean_wins(n, pairs)):
        mine = [p for (first, _), p in table.items() if first == i]
        assert mean == pytest.approx(sum(mine) / len(mine))
    assert mean_wins(n + 1, pairs)[n] is None
