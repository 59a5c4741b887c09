"""Intervals against the analytic ones, scipy's, and their own symmetries."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, t

from raypipe.evaluation import bootstrap as module
from raypipe.evaluation.bootstrap import interval


def test_one_seed_is_near_the_analytic_interval():
    """The bootstrap mean of 200 zeros and 200 ones is Binomial(400, .5) / 400: sd = .5 / 20."""
    low, high = interval([[0.0, 1.0] * 200])
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.003)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.003)


def test_one_seed_agrees_with_scipy():
    values = np.random.default_rng(1).beta(2, 3, 60)
    theirs = bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(7)
    ).confidence_interval
    assert interval([values], resamples=20_000) == pytest.approx(tuple(theirs), abs=0.003)


def test_two_values_are_exact():
    """Resamples of (0, 1) have mean 0, .5, 1 with 1/4, 1/2, 1/4."""
    assert interval([[0.0, 1.0]], level=0.95) == (0.0, 1.0)
    assert interval([[0.0, 1.0]], level=0.4) == (0.5, 0.5)


def test_seeds_alone_vary_too():
    """Three seeds, 0, 1, 2 on every query: their standard error is 1 / sqrt 3 at two degrees."""
    low, high = interval([[0.0] * 400, [1.0] * 400, [2.0] * 400])
    reach = t.ppf(0.975, 2) / math.sqrt(3)
    assert (low, high) == pytest.approx((1 - reach, 1 + reach), rel=0.05)


def test_the_variances_of_queries_and_seeds_add_up():
    """value = query effect + seed effect: the variance of the mean is the sum of both."""
    rng = np.random.default_rng(2)
    queries, seeds = rng.normal(0, 0.2, 100), rng.normal(0, 0.05, 8)
    low, high = interval((queries[None, :] + seeds[:, None]).tolist())
    error = math.sqrt(queries.var(ddof=1) / 100 + seeds.var(ddof=1) / 8)
    assert high - low == pytest.approx(2 * 2.0 * error, rel=0.06)
    of_queries = interval([queries + seeds.mean()])
    assert of_queries[1] - of_queries[0] < high - low


def test_seeded_and_narrower_at_a_lower_level():
    values = [np.random.default_rng(3).random(50)]
    assert interval(values) == interval(values)
    assert interval(values, seed=1) != interval(values, seed=2)
    wide, narrow = interval(values, level=0.99), interval(values, level=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_kept_draws_are_those_of_a_first_time(monkeypatch):
    values = np.random.default_rng(3).random((3, 1, 300)).tolist()
    kept = [interval(value) for value in values]
    monkeypatch.setattr(module, "_KEPT", 0)
    assert [interval(value) for value in values] == kept and len(set(kept)) == 3


def test_equal_values_are_a_point():
    assert interval([[0.25] * 7] * 3) == pytest.approx((0.25, 0.25))
    assert interval([[0.25]]) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("values", "level", "message"),
    [
        ([], 0.95, "expected at least one value, found none"),
        ([[]], 0.95, "expected at least one value, found none"),
        ([[0.1, 0.2], [0.1]], 0.95, r"seeds with \[1, 2\] values"),
        ([[0.1, math.nan]], 0.95, "expected finite values, found nan"),
        ([[0.1, 0.2]], 95, "expected a level between 0 and 1, found 95"),
    ],
)
def test_refuses(values, level, message):
    with pytest.raises(ValueError, match=message):
        interval(values, level)
