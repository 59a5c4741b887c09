"""Intervals, paired tests and the correction for many tests, over per-query values."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
"""Bootstrap resamples behind every interval of a report."""


class PairedTest(NamedTuple):
    """A two-sided paired t-test of `a` against `b`."""

    difference: float
    """mean(a) - mean(b)"""
    p: float
    """0..1; 1 if all pairs are equal; NaN with fewer than two queries."""


def interval(
    values: Sequence[float], level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, queries resampled. One value gives (value, value).

    Args:
        values: one per query, finite, at least one.
        level: between 0 and 1, exclusive.

    Raises:
        ValueError: no values, values that are not finite, a level outside its range.
    """
    from scipy.stats import bootstrap

    sample = _finite(values)
    if not len(sample):
        raise ValueError("expected at least one value, found none; are there judged queries?")
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, found {level}; 0.95 is 95 %")
    if len(sample) == 1:
        return float(sample[0]), float(sample[0])
    result = bootstrap(
        (sample,),
        np.mean,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        batch=max(1, 1_000_000 // len(sample)),  # 16 MB of indices and values at a time
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def paired_test(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Two-sided paired t-test; a[i] and b[i] belong to the same query.

    Raises:
        ValueError: the lengths differ, there are no values, or some are not finite.
    """
    from scipy.stats import ttest_rel

    left, right = _finite(a), _finite(b)
    if len(left) != len(right) or not len(left):
        raise ValueError(
            f"expected one value per query on both sides, found {len(left)} and {len(right)}; "
            "evaluate both runs on the same queries"
        )
    difference = float(np.mean(left - right))
    if np.array_equal(left, right):
        return PairedTest(difference, 1.0)
    if len(left) < 2:
        return PairedTest(difference, math.nan)
    with warnings.catch_warnings():  # a constant difference warns, and gives p near 0, as it should
        warnings.simplefilter("ignore", RuntimeWarning)
        return PairedTest(difference, float(ttest_rel(left, right).pvalue))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p-values in the given order; None and NaN are passed through.

    Entries without a value are no tests and do not count in the family.
    """
    from statsmodels.stats.multitest import multipletests

    out = list(p_values)
    tested = [(i, p) for i, p in enumerate(p_values) if p is not None and not math.isnan(p)]
    if tested:
        adjusted = multipletests([p for _, p in tested], method="holm")[1]
        for (i, _), value in zip(tested, adjusted, strict=True):
            out[i] = float(value)
    return out


def _finite(values: Sequence[float]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(
            f"expected finite values, found {array[~np.isfinite(array)][0]}; "
            "a measure that gives it has failed on some query"
        )
    return array
