"""Slices of the test queries: groups by a column of a table, each judged by itself."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from raypipe.config import Config
from raypipe.datasets.own_qrels import QUERY_IDS
from raypipe.datasets.own_rows import Header, OwnRow, own_rows, table_files
from raypipe.evaluation.results import PerQuery, Row
from raypipe.tables.fields import real

NO_GROUP = "(none)"
"""The group of queries that the table lacks, or has no value of."""


class Slices(Config):
    """Groups of test queries, by a column of a table of queries."""

    path: str
    """A table (CSV, TSV, JSON lines, Parquet) with a column of query ids."""
    column: str = Field(min_length=1)
    """The column that parts the queries, such as an intent, a language, or how often a query is
    asked."""
    bands: tuple[float, ...] = ()
    """Limits between groups of a column of numbers, rising: [10, 100] gives under 10, 10 up to 100,
    and 100 and more."""
    query_id: str = "query_id"
    """The column of query ids; where the table has none of that name, one of a usual name."""

    @field_validator("bands")
    @classmethod
    def _rising(cls, bands: tuple[float, ...]) -> tuple[float, ...]:
        if list(bands) != sorted(set(bands)):
            raise ValueError(f"expected rising limits, found {list(bands)}; sort them")
        return bands

    def check(self) -> None:
        """Read the table.

        Raises:
            ConfigError: it is not there, a row is malformed, or a column is missing.
        """
        self.group_of()

    def group_of(self) -> Mapping[str, str]:
        """The group of each query of the table.

        Raises:
            ConfigError: as `check`.
        """
        header = Header(
            lambda fields: self.column in fields,
            lambda number: None,
            f"a first line that names {self.query_id} and {self.column}",
        )
        groups: dict[str, str] = {}
        for part in table_files(Path(self.path).expanduser(), "slices"):
            for row in own_rows(part, header):
                ids = (self.query_id, *QUERY_IDS)
                name = next((column for column in ids if column in row.values), None)
                if name is None or self.column not in row.values:
                    raise row.wrong(f"columns {self.query_id} and {self.column}")
                query_id, group = str(row.values[name]), self._group(row, row.values[self.column])
                if groups.setdefault(query_id, group) != group:
                    raise row.wrong(
                        f"one group per query, and an earlier row has {groups[query_id]!r} for it",
                        query_id,
                    )
        return groups

    def _group(self, row: OwnRow, value: object) -> str:
        if value is None or str(value).strip() == "":
            return NO_GROUP
        if not self.bands:
            return str(value).strip()
        try:
            number = real(str(value).strip())
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise row.wrong(f"a number as {self.column}", value)
        return _band(self.bands, bisect_right(self.bands, number))


def _band(bands: tuple[float, ...], at: int) -> str:
    """The name of a band: under 10, 10 up to 100, 100 and more."""
    if at == 0:
        return f"under {bands[0]:g}"
    if at == len(bands):
        return f"{bands[-1]:g} and more"
    return f"{bands[at - 1]:g} up to {bands[at]:g}"


def slice_sizes(group_of: Mapping[str, str], results: PerQuery, measure: str) -> dict[str, int]:
    """Group -> how many of the judged queries are in it, the largest first."""
    sizes: dict[str, int] = {}
    for query_id in results.get(measure, {}):
        group = group_of.get(query_id, NO_GROUP)
        sizes[group] = sizes.get(group, 0) + 1
    return dict(sorted(sizes.items(), key=lambda size: (-size[1], size[0])))


def slice_means(
    group_of: Mapping[str, str], seeds: tuple[PerQuery, ...], measure: str
) -> dict[str, float]:
    """Group -> mean over its queries and the seeds."""
    values: dict[str, list[float]] = {}
    for results in seeds:
        for query_id, value in results.get(measure, {}).items():
            values.setdefault(group_of.get(query_id, NO_GROUP), []).append(value)
    return {group: math.fsum(of) / len(of) for group, of in values.items()}


@dataclass(frozen=True)
class Sliced:
    """Rows on the groups of one slice of a test set; nothing is tested."""

    measure: str
    sizes: Mapping[str, int]
    """Group -> how many judged queries are in it, the largest first."""
    means: Mapping[str, Mapping[str, float]]
    """Row -> group -> mean over the group's queries and the row's seeds."""

    def worst(self, row: str) -> str:
        """The group with the row's lowest mean, of queries that have a group."""
        means = {group: mean for group, mean in self.means[row].items() if group != NO_GROUP}
        return min(means, key=lambda group: means[group])

    def json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "measure": self.measure,
            "queries": dict(self.sizes),
            "rows": {
                row: {"means": dict(means), "worst": self.worst(row)}
                for row, means in self.means.items()
            },
        }


def rows_by_group(
    group_of: Mapping[str, str], rows: Sequence[Row], test_set: str, measure: str
) -> Sliced | None:
    """What the rows reach on each group; None where no judged query has a group."""
    judged = [row for row in rows if row.results.get(test_set)]
    if not judged:
        return None
    sizes = slice_sizes(group_of, judged[0].results[test_set][0], measure)
    if set(sizes) <= {NO_GROUP}:
        return None
    means = {
        row.name: slice_means(group_of, tuple(row.results[test_set]), measure) for row in judged
    }
    return Sliced(measure, sizes, means)
