"""Bootstrap intervals of a mean over queries and seeds.

Shapes: S seeds, Q queries, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
"""Resamples behind every interval of a report."""
_CELLS = 2_000_000  # drawn at a time: 16 MB


def interval(
    values_SQ: Sequence[Sequence[float]],
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over all seeds and queries.

    Each resample draws queries and, independently, seeds: both are samples of what could have been
    (a crossed design; Owen 2007, "The pigeonhole bootstrap"). With one seed it draws queries only;
    a single query or equal values give an interval of no width. Few seeds say little of the spread
    between seeds: with three seeds the interval is rather too narrow.

    Args:
        values_SQ: finite; every seed has a value of every query, in the same order.
        level: between 0 and 1, exclusive.

    Raises:
        ValueError: there are no values, seeds have different numbers of queries, a value is not
            finite, or the level is out of its range.
    """
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, found {level}; 0.95 is 95 %")
    table_SQ = matrix(values_SQ)
    rng = np.random.default_rng(seed)
    seeds, queries = table_SQ.shape
    means_B = np.empty(resamples)
    step = max(1, _CELLS // queries)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        often_BQ = rng.multinomial(queries, np.full(queries, 1 / queries), size=count)
        often_BS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=count)
        sums_B = np.einsum("bs,sq,bq->b", often_BS, table_SQ, often_BQ, optimize=True)
        means_B[start : start + count] = sums_B / (seeds * queries)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(means_B, [tail, 100 - tail])
    return float(low), float(high)


def matrix(values_SQ: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """The values as float64 [S, Q].

    Raises:
        ValueError: there are no values, seeds have different numbers of queries, or a value is not
            finite.
    """
    sizes = {len(values_Q) for values_Q in values_SQ}
    if sizes in (set(), {0}):
        raise ValueError(
            "expected at least one value, found none; choose queries that have judgements"
        )
    if len(sizes) > 1:
        raise ValueError(
            f"expected one value per query and seed, found seeds with {sorted(sizes)} values; "
            "evaluate all seeds on the same queries"
        )
    table = np.asarray(values_SQ, dtype=np.float64)
    if not np.isfinite(table).all():
        raise ValueError(
            f"expected finite values, found {table[~np.isfinite(table)][0]}; "
            "a measure failed on some query: leave that measure out"
        )
    return table
