from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from raypipe.evaluation import significance
from raypipe.evaluation.significance import effect_size, holm, paired_test, permutation_test


def test_paired_test_by_hand():
    """Differences 1, 2, 3: mean 2, sd 1, t = 2 / (1 / sqrt 3) = 3.4641 with 2 degrees of freedom.

    The t distribution with 2 degrees of freedom has a closed form: p = 1 - t / sqrt(t^2 + 2).
    """
    result = paired_test([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert result.difference == pytest.approx(2.0)
    assert result.p == pytest.approx(1 - math.sqrt(12) / math.sqrt(14))
    turned = paired_test([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert (turned.difference, turned.p) == (-2.0, pytest.approx(result.p))


def test_paired_test_edges_are_numbers():
    equal = paired_test([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert (equal.difference, equal.p, equal.interval()) == (0.0, 1.0, (0.0, 0.0))
    assert paired_test([0.5], [0.5]).p == 1.0
    assert paired_test([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]).p == 0.0  # constant: t is infinite
    single = paired_test([0.5], [0.25])
    assert single.difference == 0.25
    assert math.isnan(single.p)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0, 2.0], [1.0], "found 2 and 1"),
        ([], [], "expected at least one value, found none"),
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
    out = holm([0.01, math.nan, 0.04, math.nan])
    assert out[0] == pytest.approx(0.02)
    assert out[2] == pytest.approx(0.04)
    assert math.isnan(out[1]) and math.isnan(out[3])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_the_naive_step_down(p_values):
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    running, expected = 0.0, [0.0] * len(p_values)
    for position, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - position) * p_values[i]))
        expected[i] = running
    assert holm(p_values) == pytest.approx(expected)


def test_holm_equals_that_of_statsmodels():
    p_values = np.random.default_rng(4).random(40) ** 3
    assert holm(p_values) == multipletests(p_values, method="holm")[1].tolist()


def test_permutation_of_few_queries_is_exact():
    """Differences 1, 2, 3: of 8 sign patterns two have a mean as far from 0 as theirs."""
    assert permutation_test([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx(2 / 8)
    # 1, 1, -1 and its mirror, each in 3 orders, and the two with all signs equal
    assert permutation_test([1.0, 1.0, 0.0], [0.0, 0.0, 1.0]) == pytest.approx(1.0)


def test_permutation_edges():
    assert permutation_test([0.1, 0.2], [0.1, 0.2]) == 1.0
    assert math.isnan(permutation_test([0.5], [0.25]))
    many = np.random.default_rng(0).random(200)
    assert permutation_test(many + 0.5, many, resamples=1000) == pytest.approx(2 / 1000)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=2, max_size=7))
def test_permutation_equals_all_sign_flips(differences):
    observed = abs(sum(differences))
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    as_far = sum(abs(np.dot(one, differences)) >= observed for one in flips)
    found = permutation_test([float(d) for d in differences], [0.0] * len(differences))
    assert found == pytest.approx(as_far / len(flips))


@pytest.mark.parametrize("queries", [9, 40, 400])
def test_permutation_agrees_with_scipy(queries, monkeypatch):
    rng = np.random.default_rng(queries)
    base = rng.random(queries)
    other = base + rng.normal(0.2 / math.sqrt(queries), 0.2, queries)
    found = permutation_test(other, base, resamples=20_000)
    theirs = scipy.stats.permutation_test(
        (other - base,),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        n_resamples=20_000,
        vectorized=True,
        batch=2_000,
        rng=rng,
    ).pvalue
    assert found == pytest.approx(theirs, abs=1e-12 if queries == 9 else 0.015)
    monkeypatch.setattr(significance, "_KEPT", 0)  # drawn anew for every pair
    assert permutation_test(other, base, resamples=20_000) == found


def test_permutation_agrees_with_the_t_test_on_normal_differences():
    rng = np.random.default_rng(5)
    base = rng.random(80)
    other = base + rng.normal(0.02, 0.08, 80)
    t, flips = paired_test(other, base).p, permutation_test(other, base)
    assert flips == pytest.approx(t, abs=0.01) and 0.001 < t < 0.1


def test_effect_size_by_hand():
    """Differences 1, 2, 3: mean 2, standard deviation 1."""
    assert effect_size([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx(2.0)
    assert effect_size([1.0, 2.0], [1.0, 2.0]) == 0.0
    assert effect_size([0.0, 1.0], [1.0, 2.0]) == -math.inf
    assert math.isnan(effect_size([1.0], [0.5]))
