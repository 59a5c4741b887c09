"""Paired tests of per-query values, their effect size, and the correction for many tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from raypipe.evaluation.bootstrap import RESAMPLES, matrix
from raypipe.evaluation.spread import Spread, Values, spread, t_quantile, t_tail

POWER = 0.8
"""The share of repetitions in which a difference that can be shown is found, as is the habit."""
_CELLS = 2_000_000  # sign flips drawn at a time: 16 MB


class PairedTest(NamedTuple):
    """A two-sided paired t-test of `a` against `b`, and what else follows from its figures."""

    difference: float
    """mean(a) - mean(b)"""
    error: float
    """Standard error of the difference; 0 if all pairs are equal, NaN with one query."""
    freedom: float
    """Degrees of freedom of the t distribution."""

    @property
    def p(self) -> float:
        """0..1; 1 if all pairs are equal; NaN with fewer than two queries that differ."""
        if self.difference == 0:
            return 1.0
        if self.error == 0:
            return 0.0
        return float(2 * t_tail(abs(self.difference) / self.error, self.freedom))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The confidence interval of the difference."""
        reach = Spread(self.error, self.freedom).reach(level)
        return self.difference - reach, self.difference + reach

    def detectable(self, alpha: float = 0.05) -> float:
        """The true difference that the test would find in `POWER` of the repetitions with as many
        queries and seeds: (t(1 - alpha / 2) + t(power)) * error, before Holm's correction.

        Returns:
            In the unit of the measure; infinite with fewer than two queries.
        """
        if math.isnan(self.error):
            return math.inf
        quantiles = (t_quantile(share, self.freedom) for share in (1 - alpha / 2, POWER))
        return sum(quantiles) * self.error


def paired_test(a: ArrayLike, b: ArrayLike) -> PairedTest:
    """Compare two rows on the same queries, counting what another draw of seeds would change.

    With one seed each this is the paired t-test; with more, the error is that of `spread`.

    Args:
        a: [queries], or [seeds, queries] for a row that was trained with several seeds.
        b: likewise; column i belongs to the same query as column i of `a`.

    Raises:
        ValueError: the numbers of queries differ, there are no values, or a value is not finite.
    """
    left_SQ, right_SQ = pairs_of(a, b)
    difference_Q = left_SQ.mean(axis=0) - right_SQ.mean(axis=0)
    difference = float(difference_Q.mean())
    if np.array_equal(left_SQ, right_SQ):  # the same run twice
        return PairedTest(0.0, 0.0, 1.0)
    error, freedom = spread(difference_Q, [left_SQ, right_SQ])
    return PairedTest(difference, float(error), float(freedom))


def permutation_test(
    a: ArrayLike, b: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """p of the two-sided paired permutation test of the mean difference: random flips of signs.

    The test assumes no distribution (Smucker et al. 2007 recommend it for retrieval). It is exact
    where no more than `resamples` sign patterns exist. Queries alone are its sample: values are
    averaged over seeds, so it speaks of these checkpoints.

    Returns:
        0..1, never below 2 / resamples; 1 if all pairs are equal; NaN with one query.

    Raises:
        ValueError: as `paired_test`.
    """
    from scipy.stats import permutation_test as flips

    left_SQ, right_SQ = pairs_of(a, b)
    difference = left_SQ.mean(axis=0) - right_SQ.mean(axis=0)
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


def effect_size(a: ArrayLike, b: ArrayLike) -> float:
    """Cohen's d of the paired differences: their mean over their standard deviation (n - 1).

    Values are averaged over seeds first.

    Returns:
        0 if all pairs are equal, infinite if all differ by the same amount, NaN with one query.

    Raises:
        ValueError: as `paired_test`.
    """
    left_SQ, right_SQ = pairs_of(a, b)
    difference = left_SQ.mean(axis=0) - right_SQ.mean(axis=0)
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


def pairs_of(a: ArrayLike, b: ArrayLike) -> tuple[Values, Values]:
    """Both sides as float64 [seeds, queries], paired by column.

    Raises:
        ValueError: the numbers of queries differ, there are no values, or a value is not finite.
    """
    left_SQ, right_SQ = matrix(np.atleast_2d(a).tolist()), matrix(np.atleast_2d(b).tolist())
    if left_SQ.shape[1] != right_SQ.shape[1]:
        raise ValueError(
            f"expected one value per query on both sides, found {left_SQ.shape[1]} and "
            f"{right_SQ.shape[1]}; evaluate both runs on the same queries"
        )
    return left_SQ, right_SQ
