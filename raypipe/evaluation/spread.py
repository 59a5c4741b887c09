"""How far a mean may be from the truth, when queries and training seeds are both samples.

Queries and seeds are crossed: every seed's checkpoint answers every query. Shapes: S seeds, Q
queries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


class Spread(NamedTuple):
    """The standard error of a mean, and how well it is known."""

    error: Any
    """In the unit of the measure; NaN with one query. A float, or one per comparison."""
    freedom: Any
    """Degrees of freedom of the t distribution, by Welch and Satterthwaite; 0 with one query."""

    def reach(self, level: float) -> float:
        """How far the confidence interval of one mean goes to either side."""
        return t_quantile((1 + level) / 2, self.freedom) * float(self.error)


def spread(mean_Q: Values, arms: Sequence[Values]) -> Spread:
    """The spread of the mean over queries of `mean_Q`.

    The variance has three parts: that over queries, of values averaged over seeds; for every arm
    that over seeds, of values averaged over queries; and, taken off again, what stands in both,
    the noise of a query under a seed. The variance is never less than that over queries alone. An
    arm with one seed adds nothing: the mean then speaks of its checkpoint, not of its recipe.

    Args:
        mean_Q: [..., Q], the values of an arm averaged over its seeds, or the difference of two
            such arms; of many comparisons at once where there are axes before.
        arms: [..., S, Q] each; the seeds of different arms are independent.
    """
    queries = mean_Q.shape[-1]
    if queries < 2:
        return Spread(math.nan, 0.0)
    over_queries = mean_Q.var(axis=-1, ddof=1) / queries
    parts = [(over_queries, queries - 1.0)]
    variance = over_queries
    for arm in arms:
        if (seeds := arm.shape[-2]) > 1:
            over_seeds = arm.mean(axis=-1).var(axis=-1, ddof=1) / seeds
            in_both = arm.var(axis=-2, ddof=1).mean(axis=-1) / (seeds * queries)
            variance = variance + over_seeds - in_both
            parts += [(over_seeds, seeds - 1.0), (in_both, queries * (seeds - 1.0))]
    variance = np.maximum(variance, over_queries)
    weights = sum(part * part / freedom for part, freedom in parts)
    some = np.where(weights > 0, weights, 1.0)
    freedom = np.where(weights > 0, variance**2 / some, queries - 1.0)[()]  # of one mean no array
    return Spread(np.sqrt(variance), freedom)


def t_quantile(share: float, freedom: float) -> float:
    """The value that a t variable stays below in `share` of the cases."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


def t_tail(value: Any, freedom: Any) -> Any:
    """The share of cases in which a t variable exceeds a value; also for arrays."""
    from scipy.special import stdtr

    return stdtr(freedom, -value)
