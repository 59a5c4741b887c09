"""Passages cut to fit: shares, beginnings, and what is counted."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.inference.llm.asked import MESSAGE_TOKENS, TEMPLATE_TOKENS, Fitter, cut, shares
from raypipe.inference.llm.base import Prompt, estimate_tokens


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize(
    ("lengths", "room", "expected"),
    [
        ([2, 9, 9], 12, [2, 5, 5]),
        ([9, 2, 9], 13, [5, 2, 6]),
        ([3, 3], 100, [3, 3]),
        ([5, 5, 5], 0, [0, 0, 0]),
        ([], 7, []),
    ],
)
def test_shares(lengths, room, expected):
    assert shares(lengths, room) == expected


@settings(deadline=None, database=None)
@given(st.lists(st.integers(0, 50), max_size=9), st.integers(0, 200))
def test_shares_use_the_room_and_are_as_equal_as_can_be(lengths, room):
    found = shares(lengths, room)
    assert sum(found) == min(room, sum(lengths))
    cuts = [part for part, n in zip(found, lengths, strict=True) if part < n]
    assert all(part <= n for part, n in zip(found, lengths, strict=True))
    assert not cuts or max(found) <= min(cuts) + 1


@pytest.mark.parametrize(
    ("text", "budget", "expected"),
    [
        ("one two three", 2, "one two"),
        ("one two three", 3, "one two three"),
        ("one two three", 0, ""),
    ],
)
def test_cut_by_words(text, budget, expected):
    assert cut(text, budget, words) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("aaaa bbbb cccc", "aaaa"), ("aaaaaaaaaaaaaaaa", "aaaaaaaa"), ("aaaaaaa bbbb", "aaaaaaa")],
)
def test_cut_ends_at_a_word_unless_the_first_is_too_long(text, expected):
    """Two tokens are eight characters."""
    assert cut(text, 2, estimate_tokens) == expected


@settings(deadline=None, database=None)
@given(st.text(alphabet="ab \n", max_size=60), st.integers(0, 20))
def test_a_cut_is_a_beginning_within_the_budget(text, budget):
    found = cut(text, budget, estimate_tokens)
    assert text.startswith(found) and estimate_tokens(found) <= budget


def make(passages):
    return Prompt((("system", "be brief"), ("user", "rank: " + " | ".join(passages))))


def test_a_fitted_prompt_uses_the_context():
    counts: Counter[str] = Counter()
    frame = 2 + 1 + 1 + 2 * MESSAGE_TOKENS + TEMPLATE_TOKENS  # "be brief", "rank:", "|"
    fit = Fitter(words, frame + 10 + 30, counts)
    prompt = fit(make, ["x " * 9, "y " * 90], 10)
    assert prompt == make(["x " * 9, " ".join(["y"] * 21)])
    assert counts == {"passages": 2, "passages_cut": 1}
    assert fit(make, ["x " * 90, "y " * 90], 10) == make([" ".join("x" * 15), " ".join("y" * 15)])


def test_fewer_than_eight_tokens_for_a_passage_do_not_fit():
    counts: Counter[str] = Counter()
    frame = 2 + 1 + 1 + 2 * MESSAGE_TOKENS + TEMPLATE_TOKENS
    assert Fitter(words, frame + 16, counts)(make, ["x " * 9, "y " * 9], 0) is not None
    assert Fitter(words, frame + 15, counts)(make, ["x " * 9, "y " * 9], 0) is None
    assert Fitter(words, frame + 15, counts)(make, ["x " * 3, "y " * 3], 0) is not None
    assert Fitter(words, 10, counts)(make, ["x", "y"], 0) is None
    assert counts["passages"] == 4


def test_estimate():
    assert [estimate_tokens("x" * n) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
