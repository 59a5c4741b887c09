"""The mean over a suite: by hand, against closed forms, and by its level at the null."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from raypipe.evaluation.significance import paired_test
from raypipe.evaluation.suite_power import suite_rejections
from raypipe.evaluation.suite_test import FEW_SETS, FEWEST_SETS, _drawn, suite_test


def arms(sets: int, seeds: int, queries: int, shift: float = 0.0, seed: int = 0):
    """Two rows, [seeds, queries] per set; the sets differ in their queries' number."""
    rng = np.random.default_rng(seed)
    sizes = [queries + k for k in range(sets)]
    left = [rng.normal(0.5 + shift, 0.2, (seeds, size)) for size in sizes]
    return left, [rng.normal(0.5, 0.2, (seeds, size)) for size in sizes]


def test_difference_and_error_are_those_of_sets_in_the_place_of_queries():
    left, right = arms(5, 3, 20)
    test = suite_test(left, right, 200)
    by_set = [np.stack([values.mean(axis=1) for values in arm], axis=1) for arm in (left, right)]
    expected = paired_test(*by_set)
    assert (test.difference, test.error) == (expected.difference, expected.error)
    gaps = [a.mean() - b.mean() for a, b in zip(left, right, strict=True)]
    assert test.difference == pytest.approx(np.mean(gaps))  # a large set weighs no more


def test_with_many_sets_and_one_seed_p_is_that_of_the_t_test_over_sets():
    """Sets of one query: nothing is drawn but sets, and normal differences are t-distributed."""
    for shift in (0.03, 0.08):
        left, right = arms(60, 1, 1, shift)
        left, right = ([values[:, :1] for values in arm] for arm in (left, right))
        expected = ttest_rel(np.concatenate(left, axis=1)[0], np.concatenate(right, axis=1)[0])
        test = suite_test(left, right, 4000)
        assert test.p == pytest.approx(expected.pvalue, abs=0.03)
        interval = expected.confidence_interval()
        assert test.interval(0.95) == pytest.approx(tuple(interval), abs=0.01)


def test_sets_queries_and_seeds_are_drawn_again():
    """The variance of drawn means has a closed form: per draw of a set, that between sets, that of
    queries within a set over their number, and that of seeds over theirs; all with n, not n - 1."""
    rng = np.random.default_rng(1)
    sets, seeds, queries = 8, 4, 50
    between = rng.normal(0, 0.3, (sets, 1, 1))
    seeded = np.array([-0.5, -0.1, 0.2, 0.6]).reshape(1, seeds, 1)
    left = list(between + seeded + rng.normal(0, 0.5, (sets, 1, queries)))
    left_BSK, right_BSK = _drawn([(a, np.zeros((1, queries))) for a in left], 20_000, rng)
    assert left_BSK.shape == (20_000, seeds, sets) and not right_BSK.any()
    means = np.array([values.mean() for values in left])
    within = np.mean([values.mean(axis=0).var() for values in left])
    expected = means.var() / sets + within / queries / sets + seeded.var() / seeds
    assert left_BSK.mean(axis=(1, 2)).var() == pytest.approx(expected, rel=0.05)
    assert left_BSK.mean() == pytest.approx(means.mean(), abs=0.01)
    # a seed is the same on all sets: drawn apart on each, the last part would be divided by sets
    assert seeded.var() / seeds > 0.3 * expected


def test_p_interval_and_equivalence_say_the_same():
    test = suite_test(*arms(12, 3, 40, 0.05), 999)
    assert 0.001 <= test.p <= 1
    for level in (0.8, 0.9, 0.95, 0.99):
        low, high = test.interval(level)
        assert low + high == pytest.approx(2 * test.difference)
        assert (low <= 0 <= high) == (test.p > 1 - level)
    assert test.equivalence(0.001) > 0.5 > 0.05 > test.equivalence(0.5)


def test_the_same_seed_gives_the_same_p_and_sides_change_only_signs():
    left, right = arms(6, 1, 30, 0.02)
    one, other = suite_test(left, right, 500), suite_test(right, left, 500)
    assert one.p == suite_test(left, right, 500).p != suite_test(left, right, 500, seed=1).p
    assert one.p == other.p and one.difference == -other.difference


def test_the_edges():
    left, right = arms(4, 2, 10)
    same = suite_test(left, left, 100)
    assert (same.p, same.interval(0.95), same.equivalence(0.01)) == (1.0, (0.0, 0.0), 0.0)
    flat = [np.full((1, 3), value) for value in (0.25, 0.5, 0.75)]
    higher = suite_test([values + 0.125 for values in flat], flat, 100)
    assert (higher.p, higher.interval(0.95)) == (0.0, (0.125, 0.125))
    two = suite_test(left[:2], right[:2], 100)
    assert math.isfinite(two.difference) and len(left[:2]) < FEWEST_SETS
    assert all(map(math.isnan, (two.p, *two.interval(0.95), two.equivalence(0.01))))
    with pytest.raises(ValueError, match=r"the same seeds on all test sets .* found \[1, 2\]"):
        suite_test([left[0][:1], *left[1:]], right, 100)
    with pytest.raises(ValueError, match="one value per query on both sides"):
        suite_test(left, right[::-1], 100)


def test_three_unlike_sets_decide_nothing():
    """One set drawn thrice has a share of 1/9: no p is below that where queries add nothing."""
    flat = [np.full((1, 5), value) for value in (16.25, 16.375, 16.75)]
    low = [np.zeros((1, 5))] * 3
    assert suite_test(flat, low, 2000).p == pytest.approx(1 / 9, abs=0.02)
    assert 2 / 2**FEW_SETS < 0.05 < 2 / 2 ** (FEW_SETS - 1)


@pytest.mark.parametrize(("sets", "seeds"), [(3, 1), (3, 5), (5, 3), (12, 3)])
@pytest.mark.parametrize("set_sd", [0.0, 0.1])
def test_equal_recipes_differ_as_often_as_alpha_says(sets, seeds, set_sd):
    """250 draws of a level of .05 have a standard deviation of .014: the bounds are 3 of them."""
    level = suite_rejections(sets, seeds, set_sd, 0.01 * (seeds > 1), runs=250, queries=60)
    assert level.over_sets <= 0.092
    if set_sd > 0:
        assert level.queries_alone > 0.3  # which is why sets are drawn


def test_more_sets_find_more():
    power = [suite_rejections(k, 3, 0.03, difference=0.04, runs=80).over_sets for k in (4, 12)]
    assert power[0] + 0.2 < power[1] > 0.6
