"""Intervals of a mean over queries and seeds.

Shapes: S seeds, Q queries, B bootstrap resamples.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from raypipe.evaluation.spread import spread

RESAMPLES = 10_000
"""Resamples behind every interval of a report."""
_CELLS = 2_000_000  # drawn at a time: 16 MB
_KEPT = 30_000_000  # draws of a test set that are kept: 60 MB, of 3,000 queries


def interval(
    values_SQ: Sequence[Sequence[float]],
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """The interval of the mean over all seeds and queries.

    With one seed it is the percentile bootstrap over queries; a single query or equal values give
    an interval of no width. Several seeds lead to the t interval of `spread`: resampled seeds
    would show too little of what another seed changes, since there are few.

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
    seeds, queries = table_SQ.shape
    mean_Q = table_SQ.mean(axis=0)
    if seeds > 1 and queries > 1:
        reach = spread(mean_Q, [table_SQ]).reach(level)
        return float(mean_Q.mean()) - reach, float(mean_Q.mean()) + reach
    kept = queries < 2**16 and queries * resamples <= _KEPT
    drawn = _kept_draws if kept else _draws
    means_B = np.concatenate(
        [often_BQ @ mean_Q / queries for often_BQ in drawn(queries, resamples, seed)]
    )
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(means_B, [tail, 100 - tail])
    return float(low), float(high)


def _draws(queries: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """How often each query is drawn, [B, Q], in blocks of `_CELLS`."""
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // queries)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        yield rng.multinomial(queries, np.full(queries, 1 / queries), size=count)


@functools.lru_cache(maxsize=2)
def _stored_draws(queries: int, resamples: int, seed: int) -> list[npt.NDArray[np.uint16]]:
    return [often_BQ.astype(np.uint16) for often_BQ in _draws(queries, resamples, seed)]


def _kept_draws(queries: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """The same from memory: every row of a table is drawn alike, and drawing is nearly all of the
    work."""
    yield from (often_BQ.astype(np.int64) for often_BQ in _stored_draws(queries, resamples, seed))


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
