from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.evaluation.significance import holm, interval, paired_test


def test_interval_is_near_the_analytic_one():
    """The bootstrap mean of 200 zeros and 200 ones is Binomial(400, .5) / 400: sd = .5 / 20."""
    low, high = interval([0.0, 1.0] * 200)
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.003)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.003)


def test_interval_of_two_values_is_exact():
    """Resamples of (0, 1) have mean 0, .5, 1 with 1/4, 1/2, 1/4."""
    assert interval([0.0, 1.0], level=0.95) == (0.0, 1.0)
    assert interval([0.0, 1.0], level=0.4) == (0.5, 0.5)


def test_interval_is_seeded_and_narrows_with_the_level():
    values = np.random.default_rng(3).random(50)
    assert interval(values) == interval(values)
    assert interval(values, seed=1) != interval(values, seed=2)
    wide, narrow = interval(values, level=0.99), interval(values, level=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_interval_of_equal_values_is_a_point():
    assert interval([0.25] * 7) == (0.25, 0.25)
    assert interval([0.25]) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("values", "level", "message"),
    [
        ([], 0.95, "expected at least one value, found none"),
        ([0.1, math.nan], 0.95, "expected finite values, found nan"),
        ([0.1, 0.2], 95, "expected a level between 0 and 1, found 95"),
    ],
)
def test_interval_refuses(values, level, message):
    with pytest.raises(ValueError, match=message):
        interval(values, level)


def test_paired_test_by_hand():
    """Differences 1, 2, 3: mean 2, sd 1, t = 2 / (1 / sqrt 3) = 3.4641 with 2 degrees of freedom.

    The t distribution with 2 degrees of freedom has a closed form: p = 1 - t / sqrt(t^2 + 2).
    """
    result = paired_test([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert result.difference == pytest.approx(2.0)
    assert result.p == pytest.approx(1 - math.sqrt(12) / math.sqrt(14))
    assert paired_test([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == (-2.0, pytest.approx(result.p))


def test_paired_test_edges_are_numbers():
    assert paired_test([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]) == (0.0, 1.0)
    assert paired_test([0.5], [0.5]) == (0.0, 1.0)
    assert paired_test([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]) == (1.0, 0.0)  # constant: t is infinite
    single = paired_test([0.5], [0.25])
    assert single.difference == 0.25
    assert math.isnan(single.p)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0, 2.0], [1.0], "found 2 and 1"),
        ([], [], "found 0 and 0"),
        ([1.0, math.inf], [1.0, 2.0], "expected finite values, found inf"),
    ],
)
def test_paired_test_refuses(a, b, message):
    with pytest.raises(ValueError, match=message):
        paired_test(a, b)


def test_holm_by_hand():
    """Sorted .01, .02, .03, .04 times 4, 3, 2, 1: .04, .06, .06 (running maximum), .06."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_holm_passes_missing_values_through_and_leaves_them_out_of_the_family():
    out = holm([0.01, None, 0.04, math.nan])
    assert out[0] == pytest.approx(0.02)
    assert out[2] == pytest.approx(0.04)
    assert out[1] is None
    assert math.isnan(out[3])
    assert holm([]) == []
    assert holm([None]) == [None]


@settings(max_examples=20, deadline=None)  # statsmodels collects garbage in every call, 50 ms
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_the_naive_step_down(p_values):
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    running, expected = 0.0, [0.0] * len(p_values)
    for position, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - position) * p_values[i]))
        expected[i] = running
    assert holm(p_values) == pytest.approx(expected)
