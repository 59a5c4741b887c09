"""The error of a mean over queries and seeds: by hand, against scipy, and by its level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t, ttest_rel

from raypipe.evaluation.significance import paired_test
from raypipe.evaluation.spread import spread, t_quantile, t_tail


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 40))
def test_with_one_seed_it_is_the_paired_t_test(seed, queries):
    rng = np.random.default_rng(seed)
    a, b = rng.random(queries), rng.random(queries)
    expected = ttest_rel(a, b)
    assert paired_test(a, b).p == pytest.approx(expected.pvalue)
    assert paired_test(a, b).interval() == pytest.approx(tuple(expected.confidence_interval()))


def test_two_seeds_by_hand():
    """Queries 0 and 2 under seed 1, 2 and 4 under seed 2, against a constant row.

    Over queries: means 1 and 3, variance 2, over 2 queries 1. Over seeds: means 1 and 3, variance
    2, over 2 seeds 1. In both: each query has variance 2 over seeds, 2 / (2 * 2) = .5.
    """
    arm = np.array([[0.0, 2.0], [2.0, 4.0]])
    error, freedom = spread(arm.mean(axis=0), [arm])
    assert error == pytest.approx(math.sqrt(1 + 1 - 0.5))
    assert freedom == pytest.approx(1.5**2 / (1 + 1 + 0.5**2 / 2))
    test = paired_test(arm, [[1.0, 1.0]])
    assert (test.difference, test.error, test.freedom) == pytest.approx((1.0, error, freedom))


def test_seeds_that_agree_too_well_take_nothing_off():
    """Seeds whose noise cancels in the mean leave the error of queries alone."""
    noise = np.array([0.3, -0.3, 0.3, -0.3])
    arm = np.array([1.0, 2.0, 3.0, 4.0]) + np.array([noise, -noise])
    error, _ = spread(arm.mean(axis=0), [arm])
    assert error == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)


def test_the_t_distribution_is_that_of_scipy():
    assert t_quantile(0.975, 3.7) == pytest.approx(t.ppf(0.975, 3.7))
    values = np.array([0.0, 1.3, 40.0])
    assert t_tail(values, 3.7) == pytest.approx(t.sf(values, 3.7))
    assert t_tail(math.inf, 5.0) == 0.0
