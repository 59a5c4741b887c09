"""Paired tests of per-query values, their effect size, and the correction for many tests."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raypipe.evaluation.bootstrap import RESAMPLES, matrix

_CELLS = 2_000_000  # sign flips drawn at a time: 16 MB
Values = npt.NDArray[np.float64]


class PairedTest(NamedTuple):
    """A two-sided paired t-test of `a` against `b`."""

    difference: float
    """mean(a) - mean(b)"""
    p: float
    """0..1; 1 if all pairs are equal; NaN with fewer than two queries."""


def paired_test(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Two-sided paired t-test; a[i] and b[i] belong to the same query.

    Raises:
        ValueError: the lengths differ, there are no values, or a value is not finite.
    """
    from scipy.stats import ttest_rel

    left, right = pairs_of(a, b)
    difference = float(np.mean(left - right))
    if np.array_equal(left, right):
        return PairedTest(difference, 1.0)
    if len(left) < 2:
        return PairedTest(difference, math.nan)
    with warnings.catch_warnings():  # a constant difference warns, and gives p near 0, as it should
        warnings.simplefilter("ignore", RuntimeWarning)
        return PairedTest(difference, float(ttest_rel(left, right).pvalue))


def permutation_test(
    a: Sequence[float], b: Sequence[float], resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """p of the two-sided paired permutation test of the mean difference: random flips of signs.

    The test assumes no distribution (Smucker et al. 2007 recommend it for retrieval). It is exact
    where no more than `resamples` sign patterns exist.

    Returns:
        0..1, never below 2 / resamples; 1 if all pairs are equal; NaN with one query.

    Raises:
        ValueError: as `paired_test`.
    """
    from scipy.stats import permutation_test as flips

    left, right = pairs_of(a, b)
    difference = left - right
    if not difference.any():
        return 1.0
    if len(difference) < 2:
        return math.nan

    def mean(sample: Any, axis: int) -> Any:
        return np.mean(sample, axis=axis)

    test = flips(
        (difference,),
        mean,
        permutation_type="samples",
        n_resamples=resamples - 1,
        vectorized=True,
        batch=max(1, _CELLS // len(difference)),
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def effect_size(a: Sequence[float], b: Sequence[float]) -> float:
    """Cohen's d of the paired differences: their mean over their standard deviation (n - 1).

    Returns:
        0 if all pairs are equal, infinite if all differ by the same amount, NaN with one query.

    Raises:
        ValueError: as `paired_test`.
    """
    left, right = pairs_of(a, b)
    difference = left - right
    if not difference.any():
        return 0.0
    if len(difference) < 2:
        return math.nan
    spread = float(difference.std(ddof=1)) if np.ptp(difference) else 0.0
    mean = float(difference.mean())
    return mean / spread if spread else math.copysign(math.inf, mean)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values in the given order.

    A NaN is no test: it passes through and does not count in the family. statsmodels' function
    gives the same, but collects garbage in every call: .3 s in a process with torch and ray.
    """
    adjusted = np.array(p_values, np.float64)
    (tested,) = np.nonzero(~np.isnan(adjusted))
    rising = tested[np.argsort(adjusted[tested])]
    steps = adjusted[rising] * np.arange(len(rising), 0, -1)
    adjusted[rising] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in adjusted]


def pairs_of(a: Sequence[float], b: Sequence[float]) -> tuple[Values, Values]:
    """Both sides as float64, paired by position.

    Raises:
        ValueError: the lengths differ, there are no values, or a value is not finite.
    """
    if len(a) != len(b):
        raise ValueError(
            f"expected one value per query on both sides, found {len(a)} and {len(b)}; "
            "evaluate both runs on the same queries"
        )
    left, right = matrix([a, b])
    return left, right
