"""Paired tests of per-query values, their effect size, and the correction for many tests."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from raypipe.evaluation.bootstrap import RESAMPLES, matrix
from raypipe.evaluation.spread import Spread, Values, spread, t_quantile, t_tail

POWER = 0.8
"""The share of repetitions in which a difference that can be shown is found, as is the habit."""
_CELLS = 2_000_000  # sign flips in use at a time: 16 MB
_KEPT = 30_000_000  # sign flips of a test set that are kept: 30 MB, of 3,000 queries


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
    left_SQ, right_SQ = pairs_of(a, b)
    difference_Q = left_SQ.mean(axis=0) - right_SQ.mean(axis=0)
    queries = len(difference_Q)
    if not difference_Q.any():
        return 1.0
    if queries < 2:
        return math.nan
    flips = _flips(queries, resamples, seed)
    means_B = np.concatenate([signs_BQ @ difference_Q for signs_BQ in flips]) / queries
    mean = difference_Q.mean()
    nearly = 1e-14 * max(1.0, abs(mean))  # means that differ by rounding alone are equal
    reached = min((means_B <= mean + nearly).sum(), (means_B >= mean - nearly).sum())
    own = 0 if len(means_B) == 2**queries else 1  # the values as they are, not among those drawn
    return float(min(1.0, 2 * (reached + own) / (len(means_B) + own)))


def _flips(queries: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """Signs of the differences, [B, Q], in blocks: every pattern, or `resamples` - 1 drawn ones."""
    if 2**queries <= resamples:
        patterns_BQ = np.arange(2**queries)[:, None] >> np.arange(queries) & 1
        yield patterns_BQ * np.float64(2) - 1
        return
    draw = _stored_flips if queries * resamples <= _KEPT else _drawn_flips
    for drawn_BQ in draw(queries, resamples, seed):
        yield drawn_BQ * np.float64(2) - 1


def _drawn_flips(queries: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int8]]:
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // queries)
    for start in range(0, resamples - 1, step):
        count = min(step, resamples - 1 - start)
        yield rng.integers(2, size=(count, queries), dtype=np.int8)


@functools.lru_cache(maxsize=2)
def _stored_flips(queries: int, resamples: int, seed: int) -> list[npt.NDArray[np.int8]]:
    """Kept, because a report tests many pairs of rows on the same queries."""
    return list(_drawn_flips(queries, resamples, seed))


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
