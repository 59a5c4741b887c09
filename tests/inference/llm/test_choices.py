"""Pairwise and pointwise: numbers worked by hand, answers in text, drops."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.inference.llm.base import Answer, Prompt
from raypipe.teachers.llm.pairwise import Pairwise, first_wins, mean_wins, pairs_of
from raypipe.teachers.llm.pointwise import Pointwise, log_yes
from raypipe.teachers.llm.task import Asked, RankingList

ABC = RankingList("q", "what", ["a", "b", "c"], ["1", "2", "4"])


class Fake:
    """A generator: one function from a prompt to an answer."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.calls: list[list[Prompt]] = []

    def __call__(self, prompts, max_new_tokens):
        self.calls.append(list(prompts))
        return [self.answer(prompt) for prompt in prompts]

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def judge(task, answer, *lists, context=4096):
    generate = Fake(answer)
    asked = Asked(generate, context, task.max_failed)
    rows = task.judge(lists, asked)
    assert len(generate.calls) <= 1, "one call for the whole chunk"
    return rows, asked.counts, [p for call in generate.calls for p in call]


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


@pytest.mark.parametrize(
    ("logprobs", "value"),
    [
        ({"Yes": math.log(0.3), "No": math.log(0.1)}, math.log(0.75)),
        ({"Yes": -1000.0, "No": 0.0}, -1000.0),
        ({"Yes": -3.0}, 0.0),
        ({"No": -3.0}, None),
        ({"Yes": math.nan, "No": -1.0}, None),
        (None, None),
    ],
)
def test_log_yes(logprobs, value):
    assert log_yes(logprobs) == (value if value is None else pytest.approx(value))


def passage(prompt: Prompt) -> str:
    return re.findall(r"^Passage: (.*)$", prompt.messages[0][1], re.M)[0]


def test_pointwise_from_log_probabilities():
    def answer(prompt):
        p = float(passage(prompt)) / 8
        return Answer("", {"Yes": math.log(p), "No": math.log(1 - p)})

    (row,), counts, prompts = judge(Pointwise(), answer, ABC)
    assert row["doc_ids"] == ["a", "b", "c"]
    assert row["values"] == pytest.approx([math.log(p) for p in (1 / 8, 1 / 4, 1 / 2)])
    assert counts["answers_from_text"] == 0 and counts["requests"] == 3
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
    assert row["doc_ids"] == ["a"] and row["values"] == pytest.approx([-math.log(2)])
    assert counts["answers_from_text"] == 0 and counts["documents_without_value"] == 2


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
