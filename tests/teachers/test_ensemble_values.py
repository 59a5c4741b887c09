"""Ensembles: numbers worked by hand, what is left out, and what cannot matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.teachers.ensemble import combine

A = {"a": 4.0, "b": 2.0, "c": 0.0}
B = {"c": 10.0, "a": 30.0, "b": 20.0, "x": 99.0}
EQUAL = {"A": ("score", 1.0), "B": ("score", 1.0)}


def values(normalise, members=EQUAL, **lists):
    doc_ids, found, left = combine(lists or {"A": A, "B": B}, members, normalise)
    return dict(zip(doc_ids, found.tolist(), strict=True)), left


def test_the_mean_as_it_is():
    # (4 + 30) / 2, (2 + 20) / 2, (0 + 10) / 2; x has no value from A
    assert values("none") == ({"a": 17.0, "b": 11.0, "c": 5.0}, 1)


def test_min_max():
    # A: 1, .5, 0; B over the common documents: 1, .5, 0
    assert values("min_max") == ({"a": 1.0, "b": 0.5, "c": 0.0}, 1)


def test_z_scores_and_weights():
    # both lists have z-scores sqrt(3/2), 0, -sqrt(3/2)
    z = 1.5**0.5
    found, _ = values("z", {"A": ("score", 3.0), "B": ("rank", 1.0)})
    # B counts as -rank: its order is turned, (3 z - z) / 4
    assert found == pytest.approx({"a": z / 2, "b": 0.0, "c": -z / 2})


def test_a_constant_list_says_nothing():
    flat = {"a": 7.0, "b": 7.0, "c": 7.0}
    assert values("min_max", A=A, B=flat)[0] == {"a": 0.5, "b": 0.25, "c": 0.0}


def test_nothing_in_common():
    doc_ids, found, left = combine({"A": {"a": 1.0}, "B": {"b": 1.0}}, EQUAL, "z")
    assert (doc_ids, found.tolist(), left) == ([], [], 2)


SCORES = st.dictionaries(
    st.sampled_from("abcdef"), st.integers(-50, 50).map(float), min_size=1, max_size=6
)


@settings(deadline=None, max_examples=80, database=None)
@given(one=SCORES, two=SCORES, scale=st.sampled_from([0.5, 3.0]), shift=st.integers(-9, 9))
@pytest.mark.parametrize("normalise", ["min_max", "z"])
def test_scale_and_shift_of_a_member_do_not_matter(normalise, one, two, scale, shift):
    moved = {d: scale * v + shift for d, v in one.items()}
    docs, first, _ = combine({"A": one, "B": two}, EQUAL, normalise)
    again, second, _ = combine({"A": moved, "B": two}, EQUAL, normalise)
    assert docs == again
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=40, database=None)
@given(one=SCORES, two=SCORES)
def test_the_order_of_members_does_not_matter(one, two):
    docs, first, left = combine({"A": one, "B": two}, EQUAL, "z")
    again, second, right = combine({"B": two, "A": one}, EQUAL, "z")
    assert left == right and set(docs) == set(again)
    assert dict(zip(docs, first, strict=True)) == pytest.approx(
        dict(zip(again, second, strict=True))
    )
