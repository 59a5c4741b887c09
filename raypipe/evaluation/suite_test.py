"""Is one row better than another on test sets like those of a suite? A hierarchical bootstrap.

Test sets, the queries of each drawn set, and the seeds of both rows are drawn again; a row has the
same seeds on all sets. Shapes: K test sets, S seeds, Q queries of a set, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from raypipe.evaluation.bootstrap import RESAMPLES
from raypipe.evaluation.significance import paired_test, pairs_of
from raypipe.evaluation.spread import Values, spread

FEWEST_SETS = 3
"""Two sets say too little of others: equal recipes came out as different in up to 11 % of cases."""
FEW_SETS = 6
"""Of fewer sets even a row that wins all has p above .05 by a sign test: 2 / 2^5 is .0625."""
_BLOCK = 500  # resamples at a time; another number draws others
_CELLS = 2_000_000  # queries drawn at a time: 16 MB


class SuiteTest(NamedTuple):
    """A two-sided test of the mean over the test sets of `a` minus that of `b`."""

    difference: float
    error: float
    """Standard error of the difference over sets and seeds; NaN with too few sets."""
    ratios_B: Values
    """How far each resample is from the difference, in its own standard errors; 0 or more."""

    @property
    def p(self) -> float:
        """0..1, never below 1 / (B + 1) unless all sets differ by the same; NaN with few sets."""
        if math.isnan(self.error):
            return math.nan
        if self.error == 0:
            return float(self.difference == 0)
        return self._share(abs(self.difference))

    def interval(self, level: float) -> tuple[float, float]:
        """The symmetric interval of the difference; without a bound where few sets give none."""
        if math.isnan(self.error):
            return math.nan, math.nan
        reach = 0.0
        if self.error > 0:
            ratio = np.quantile(self.ratios_B, level, method="higher")
            reach = float(ratio) * self.error
        return self.difference - reach, self.difference + reach

    def equivalence(self, margin: float) -> float:
        """p of the two one-sided tests of |a - b| < margin."""
        within = margin - abs(self.difference)
        if math.isnan(self.error):
            return math.nan
        if self.error == 0:
            return float(within <= 0)
        half = self._share(abs(within)) / 2
        return half if within > 0 else 1 - half

    def _share(self, distance: float) -> float:
        """The share of resamples that are at least so far off."""
        far = int((self.ratios_B >= distance / self.error).sum())
        return (1 + far) / (1 + len(self.ratios_B))


def suite_test(
    a: Sequence[Values], b: Sequence[Values], resamples: int = RESAMPLES, seed: int = 0
) -> SuiteTest:
    """Compare two rows on the sets of a suite, each set weighing the same.

    The standard error is that of `spread` with sets in the place of queries. Each resample is
    measured in the standard error that it has itself (the bootstrap-t): shares of plain resamples
    would call equal recipes different in a quarter of the cases with three unlike sets.

    Args:
        a: per test set [seeds, queries]; the seeds are the same on all sets, in the same order.
        b: likewise; column i of a set belongs to the same query on both sides.

    Raises:
        ValueError: a row has other seeds on one set than on another, or as `paired_test`.
    """
    sets = [pairs_of(left, right) for left, right in zip(a, b, strict=True)]
    arms = list(zip(*sets, strict=True))
    for arm in arms:
        if len(sizes := {len(values_SQ) for values_SQ in arm}) > 1:
            raise ValueError(
                f"expected the same seeds on all test sets of a suite, found {sorted(sizes)} "
                "seeds; evaluate every seed on every set"
            )
    means = [np.stack([values_SQ.mean(axis=1) for values_SQ in arm], axis=1) for arm in arms]
    test = paired_test(*means)
    if len(sets) < FEWEST_SETS or test.error == 0:
        error = math.nan if len(sets) < FEWEST_SETS else 0.0
        return SuiteTest(test.difference, error, np.empty(0))
    rng = np.random.default_rng(seed)
    ratios_B = np.empty(resamples)
    for start in range(0, resamples, _BLOCK):
        count = min(_BLOCK, resamples - start)
        left, right = _drawn(sets, count, rng)
        difference_BK = left.mean(axis=1) - right.mean(axis=1)
        distance_B = np.abs(difference_BK.mean(axis=1) - test.difference)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio_B = distance_B / spread(difference_BK, [left, right]).error
        # one set drawn K times, all queries alike: it says nothing of the spread
        ratios_B[start : start + count] = np.where(np.isnan(ratio_B), np.inf, ratio_B)
    return SuiteTest(test.difference, test.error, ratios_B)


def _drawn(
    sets: Sequence[tuple[Values, Values]], count: int, rng: np.random.Generator
) -> list[Values]:
    """Means of resampled sets: of either row [count, S, K]."""
    slots_BK = rng.integers(len(sets), size=(count, len(sets)))
    seeds = [len(arm) for arm in sets[0]]
    means_BKS = np.empty((count, len(sets), sum(seeds)))
    for position, pair in enumerate(sets):
        here = slots_BK == position
        means_BKS[here] = _resampled(np.concatenate(pair), int(here.sum()), rng)
    drawn = []
    for arm_BKS in np.split(means_BKS, seeds[:1], axis=2):
        size = arm_BKS.shape[2]
        again = rng.integers(size, size=(count, 1, size))
        drawn.append(np.take_along_axis(arm_BKS, again, axis=2).swapaxes(1, 2))
    return drawn


def _resampled(values_SQ: Values, count: int, rng: np.random.Generator) -> Values:
    """Means over the queries of a set, drawn again `count` times: [count, S]."""
    seeds, queries = values_SQ.shape
    means = np.empty((count, seeds))
    step = max(1, _CELLS // queries)
    for start in range(0, count, step):
        size = min(step, count - start)
        drawn = rng.integers(queries, size=(size, queries)) + queries * np.arange(size)[:, None]
        often = np.bincount(drawn.ravel(), minlength=size * queries).reshape(size, queries)
        means[start : start + size] = often @ values_SQ.T / queries
    return means
