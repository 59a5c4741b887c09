"""Curves and costs of several seeds as those of one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from raypipe.evaluation.results import QueryCost, Row


def joined_curves(rows: Sequence[Row]) -> dict[str, list[Mapping[int, float]]]:
    """Test set -> the curves of all seeds; sets that a row has none of are left out."""
    common = [name for name in rows[0].depths if all(name in row.depths for row in rows)]
    return {name: [curve for row in rows for curve in row.depths[name]] for name in common}


def mean_costs(rows: Sequence[Row]) -> dict[str, QueryCost]:
    """Test set -> what a query took, the mean over the seeds, which have models of one size; sets
    that a row has none of are left out."""
    common = [name for name in rows[0].costs if all(name in row.costs for row in rows)]
    means = {}
    for name in common:
        costs = [row.costs[name] for row in rows]
        means[name] = QueryCost(
            milliseconds=fmean(cost.milliseconds for cost in costs),
            pairs=fmean(cost.pairs for cost in costs),
            requests=fmean(cost.requests for cost in costs),
            weights=costs[0].weights,
        )
    return means
