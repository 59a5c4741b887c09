"""Which choice an answer is: log-probabilities by hand, and words."""

from __future__ import annotations

import math

import pytest

from raypipe.inference.llm.base import (
    choice_answer,
    choice_logprobs,
    chosen,
)


def test_choice_logprobs_by_hand():
    top = [("A", math.log(0.5)), (" A", math.log(0.25)), ("a", math.log(0.2)), ("B", -9.0)]
    assert choice_logprobs(top, ("A", "B", "C")) == pytest.approx(
        {"A": math.log(0.75), "B": -9.0, "C": -9.0}
    )
    assert choice_logprobs([("▁Yes", -1.0), ("ĠNo", -2.0)], ("Yes", "No")) == {
        "Yes": -1.0,
        "No": -2.0,
    }
    assert choice_logprobs(top, ("Yes", "No")) is None
    assert choice_logprobs([], ("Yes", "No")) is None


def test_very_unlikely_tokens_do_not_underflow():
    logprobs = choice_logprobs([("x", -9999.0), (" x", -9999.0)], ("x",))
    assert logprobs == pytest.approx({"x": -9999.0 + math.log(2)})


def test_a_choice_that_is_not_among_the_likeliest_tokens_is_clipped():
    both = choice_answer("Yes", [(" Yes", -0.1), ("No", -3.0)], ("Yes", "No"))
    assert (both.clipped, both.logprobs) == (False, {"Yes": -0.1, "No": -3.0})
    one = choice_answer("Yes", [(" Yes", -0.1), ("Maybe", -7.0)], ("Yes", "No"))
    assert (one.clipped, one.logprobs) == (True, {"Yes": -0.1, "No": -7.0})
    neither = choice_answer("well", [("well", -0.1)], ("Yes", "No"))
    assert (neither.clipped, neither.logprobs) == (False, None)


def test_the_first_token_of_thinking_is_no_answer():
    answer = choice_answer("<think>so</think>No", [("<think>", 0.0), ("Yes", -9.0)], ("Yes", "No"))
    assert answer.logprobs is None and chosen(answer.text, ("Yes", "No")) == "No"


@pytest.mark.parametrize(
    ("text", "ab", "yes_no"),
    [
        ("A", "A", None),
        ("passage B is better than A", "B", None),
        ("Both are a mess", None, None),
        (" yes.", None, "Yes"),
        ("NO, it does not say yes", None, "No"),
        ("Nothing known", None, None),
        ("<think>A or yes?</think> B, no", "B", "No"),
        ("<think>A, yes", None, None),
        ("[THINK]A or yes[/THINK] B, no", "B", "No"),
        ("<|channel|>analysis<|message|>A<|end|><|channel|>final<|message|>B, no", "B", "No"),
        ("", None, None),
    ],
)
def test_chosen(text, ab, yes_no):
    assert chosen(text, ("A", "B")) == ab
    assert chosen(text, ("Yes", "No")) == yes_no
