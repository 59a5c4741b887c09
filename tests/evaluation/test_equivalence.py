"""TOST by hand, against two one-sided t-tests of scipy, and what verdicts mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from raypipe.evaluation.equivalence import smallest_margin, tost, verdict
from raypipe.evaluation.significance import paired_test


def test_tost_by_hand():
    """Differences -1, 0, 1: mean 0, standard error 1 / sqrt 3; margin 2 gives t = 2 sqrt 3.

    With 2 degrees of freedom P(T > t) = (1 - t / sqrt(t^2 + 2)) / 2, the same on both sides.
    """
    t = 2 * math.sqrt(3)
    expected = (1 - t / math.sqrt(t * t + 2)) / 2
    assert tost(paired_test([0.0, 1.0, 2.0], [1.0, 1.0, 1.0]), 2.0) == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.005, 0.2))
def test_tost_is_the_larger_of_two_one_sided_tests(seed, margin):
    rng = np.random.default_rng(seed)
    a, b = rng.random(20), rng.random(20)
    d = a - b
    lower = ttest_1samp(d, -margin, alternative="greater").pvalue
    upper = ttest_1samp(d, margin, alternative="less").pvalue
    assert tost(paired_test(a, b), margin) == pytest.approx(max(lower, upper))


def test_tost_edges():
    assert tost(paired_test([0.5, 0.6], [0.5, 0.6]), 0.01) == 0.0  # no difference at all
    assert tost(paired_test([2, 3], [1, 2]), 0.01) == 1.0  # a constant one beyond the margin
    assert math.isnan(tost(paired_test([0.5], [0.25]), 0.01))
    with pytest.raises(ValueError, match="expected a margin above 0, found 0"):
        tost(paired_test([0.1, 0.2], [0.1, 0.3]), 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_smallest_margin_is_where_tost_reaches_alpha(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random(15), rng.random(15)
    test = paired_test(a, b)
    margin = smallest_margin(test, alpha=0.05)
    assert tost(test, margin) == pytest.approx(0.05)
    assert tost(test, margin * 1.01) < 0.05 < tost(test, margin * 0.99)


def test_the_smallest_margin_of_one_query_is_infinite():
    assert smallest_margin(paired_test([0.5], [0.4])) == math.inf
    assert smallest_margin(paired_test([0.5, 0.5], [0.4, 0.4])) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("difference", "p", "p_equivalence", "expected"),
    [
        (0.03, 0.01, 0.9, "better"),
        (-0.03, 0.01, 0.9, "worse"),
        (0.001, 0.7, 0.01, "equivalent"),
        (0.004, 0.01, 0.02, "equivalent"),  # surely not 0, and surely too small to matter
        (0.03, 0.2, 0.3, "inconclusive"),
        (0.03, 0.05, 0.05, "inconclusive"),  # alpha itself is not below alpha
        (0.03, math.nan, math.nan, "inconclusive"),
        (0.0, 1.0, 0.0, "equivalent"),
    ],
)
def test_verdict(difference, p, p_equivalence, expected):
    assert verdict(difference, p, p_equivalence) == expected
