"""Rows that show the same run under two names, or in two jobs, as one row.

A test family that holds a run twice corrects for a comparison that nobody made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from raypipe.evaluation.results import PerQuery, Row


def same_run(row: Row, other: Row) -> bool:
    """Whether the rows show the same runs on every test set that both have, one at least.

    Runs are the same by digest. Rows of versions that kept none are the same where name, kind and
    all values are, on the measures that both have.
    """
    common = row.results.keys() & other.results.keys()
    if not common or row.error or other.error:
        return False
    if row.runs and other.runs:
        return all(sorted(row.runs[name]) == sorted(other.runs[name]) for name in common)
    if (row.name, row.kind) != (other.name, other.kind):
        return False
    return all(_equal(row.results[name], other.results[name]) for name in common)


def _equal(seeds: Sequence[PerQuery], others: Sequence[PerQuery]) -> bool:
    """Whether every seed has the same values, on the measures that both sides have."""
    if len(seeds) != len(others):
        return False
    for seed, other in zip(seeds, others, strict=True):
        measures = seed.keys() & other.keys()
        if not measures or any(dict(seed[m]) != dict(other[m]) for m in measures):
            return False
    return True


def joined(row: Row, other: Row) -> Row:
    """The row, with the test sets that only the other one has."""
    return replace(
        row,
        results={**other.results, **row.results},
        runs={**other.runs, **row.runs},
        tied={**other.tied, **row.tied},
        depths={**other.depths, **row.depths},
        costs={**other.costs, **row.costs},
        first={**other.first, **row.first},
    )


def one_row_per_run(rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
    """The rows, each run once, and the row that stands for each row that is left out.

    Returns:
        Rows in their order, and name to name.
    """
    kept: list[Row] = []
    standing: dict[str, str] = {}
    for row in rows:
        twin = next((i for i, other in enumerate(kept) if same_run(other, row)), None)
        if twin is None:
            kept.append(row)
        else:
            standing[row.name] = kept[twin].name
            kept[twin] = joined(kept[twin], row)
    return kept, standing
