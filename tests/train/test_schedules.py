"""Schedules by hand, and what holds for all of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.train.schedules import Constant, Cosine, Linear


def test_schedules_by_hand():
    """Two steps up, then four: cosine (1 + cos(0, pi/4, pi/2, 3pi/4)) / 2."""
    up = [0.5, 1.0]
    assert [Linear().factor(s, 6, 2) for s in range(6)] == [*up, 1, 0.75, 0.5, 0.25]
    assert [Linear(floor=0.2).factor(s, 6, 2) for s in range(6)] == pytest.approx(
        [*up, 1, 0.8, 0.6, 0.4]
    )
    half = math.sqrt(0.5)
    cosine = [1, (1 + half) / 2, 0.5, (1 - half) / 2]
    assert [Cosine().factor(s, 6, 2) for s in range(6)] == pytest.approx([*up, *cosine])
    floored = [0.1 + 0.9 * share for share in cosine]
    assert [Cosine(floor=0.1).factor(s, 6, 2) for s in range(6)] == pytest.approx([*up, *floored])
    assert [Constant().factor(s, 6, 2) for s in range(6)] == [*up, 1, 1, 1, 1]


@given(
    st.sampled_from([Linear(), Cosine(), Constant(), Linear(floor=0.5), Cosine(floor=0.5)]),
    st.integers(1, 200),
    st.floats(0, 1),
)
def test_no_step_is_wasted_and_none_exceeds_the_highest_rate(schedule, total, share):
    rise = int(share * total)
    factors = [schedule.factor(step, total, rise) for step in range(total)]
    assert min(factors) > 0 and max(factors) == 1
    assert factors[rise:] == sorted(factors[rise:], reverse=True)


def test_the_linear_schedule_by_hand():
    assert [Linear().factor(s, 10, 2) for s in range(10)] == [
        *(1 / 2, 1),
        *(8 / 8, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8),
    ]
    assert [Linear().factor(s, 4, 0) for s in range(4)] == [1, 0.75, 0.5, 0.25]
    assert [Linear().factor(s, 4, 4) for s in range(4)] == [0.25, 0.5, 0.75, 1]
    assert Linear().factor(0, 1, 0) == 1


@given(st.integers(1, 300), st.floats(0, 1))
def test_the_linear_schedule_rises_then_falls_and_is_never_zero(total, warmup):
    factors = [Linear().factor(step, total, int(warmup * total)) for step in range(total)]
    assert min(factors) > 0 and max(factors) == 1
    top = factors.index(1)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
