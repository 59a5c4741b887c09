"""Rows of a table artifact by number or by query, without holding the whole table."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.artifacts import Artifact


class Rows:
    """The part-*.parquet files of an artifact as one sequence; one part is in memory at a time.

    Neighbouring rows are asked for together, since a chunk's input rows stand together too.

    Args:
        columns: those to read, `query_id` among them for `of_queries`; None is all.
    """

    def __init__(self, artifact: Artifact, columns: Sequence[str] | None = None) -> None:
        folder = artifact.local()
        self._columns = None if columns is None else list(columns)
        self._paths = [folder / name for name in artifact.files if name.endswith(".parquet")]
        sizes = [pq.read_metadata(path).num_rows for path in self._paths]
        self._starts = [0, *accumulate(sizes)]
        self._part: tuple[int, pa.Table | None] = (-1, None)

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, rows: range) -> pa.Table:
        """Consecutive rows as one table."""
        tables, at = [], rows.start
        while at < rows.stop or not tables:
            number = min(bisect_right(self._starts, at), len(self._paths)) - 1
            stop = min(rows.stop, self._starts[number + 1])
            tables.append(self._table(number).slice(at - self._starts[number], stop - at))
            at = stop
        return pa.concat_tables(tables)

    def of_queries(self, query_ids: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
        """Rows by query id; a query without rows has no key."""
        wanted = sorted(row for q in set(query_ids) for row in self._rows_of.get(q, ()))
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for rows in _runs(wanted):
            for row in self.read(rows).to_pylist():
                found[row["query_id"]].append(row)
        return dict(found)

    @cached_property
    def _rows_of(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        at = 0
        for path in self._paths:
            for query_id in pq.read_table(path, columns=["query_id"])["query_id"].to_pylist():
                found[query_id].append(at)
                at += 1
        return dict(found)

    def _table(self, number: int) -> pa.Table:
        if self._part[0] != number:
            self._part = (number, pq.read_table(self._paths[number], columns=self._columns))
        table = self._part[1]
        assert table is not None
        return table


def _runs(numbers: list[int]) -> Iterator[range]:
    """Ascending numbers as ranges without gaps."""
    start = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1:
            yield range(numbers[start], numbers[at - 1] + 1)
            start = at
