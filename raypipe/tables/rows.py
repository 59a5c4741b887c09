"""Rows of a table artifact by number or by query, without holding the whole table."""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate, groupby, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.storage.artifacts import Artifact

MOST_READS = 3
"""How often each part is read from Parquet, on average, before `Rows` copies all parts unpacked.

Making the copy costs one more read of each part; from then on no part is unpacked again.
"""


class Rows:
    """The part-*.parquet files of an artifact as one sequence of rows; one part is in memory.

    Callers mostly ask for neighbouring rows, which stand in one part. Some ask for rows of every
    part each time (groups from shuffled triples): after `MOST_READS` reads of each part, all rows
    come from an unpacked copy.

    Args:
        columns: the columns to read, `query_id` among them for `of_queries`; None reads all.
    """

    def __init__(self, artifact: Artifact, columns: Sequence[str] | None = None) -> None:
        folder = artifact.local()
        self._columns = None if columns is None else list(columns)
        self._paths = [folder / name for name in artifact.files if name.endswith(".parquet")]
        sizes = [pq.read_metadata(path).num_rows for path in self._paths]
        self._starts = [0, *accumulate(sizes)]
        self._part: tuple[int, pa.Table | None] = (-1, None)
        self._reads = 0
        self._copy: list[pa.Table] | None = None

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
        """Rows by query id, each query's in row order; a query without rows has no key."""
        wanted = self._query_rows.rows(set(query_ids))
        rows_by_query: dict[str, list[dict[str, Any]]] = defaultdict(list)
        bounds = np.searchsorted(wanted, self._starts)
        for number, (start, stop) in enumerate(pairwise(bounds)):
            if stop > start:
                within = wanted[start:stop] - self._starts[number]
                for row in self._table(number).take(within).to_pylist():
                    rows_by_query[row["query_id"]].append(row)
        return dict(rows_by_query)

    @cached_property
    def _query_rows(self) -> _QueryRows:
        return _QueryRows(self._paths)

    def _table(self, number: int) -> pa.Table:
        if self._copy is not None:
            return self._copy[number]
        if self._part[0] != number:
            self._reads += 1
            if self._reads > MOST_READS * len(self._paths):
                self._part = (-1, None)
                self._copy = unpacked(self._paths, self._columns)
                return self._copy[number]
            table = pq.read_table(self._paths[number], columns=self._columns)
            self._part = (number, table.combine_chunks())
        part = self._part[1]
        assert part is not None
        return part


class _QueryRows:
    """The rows of every query, in arrays of 8 bytes per row: an artifact may have 40 million."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._number: dict[str, int] = {}
        parts = [self._numbered(path) for path in paths]
        numbers = np.concatenate([np.empty(0, np.int32), *parts])
        self._rows = np.argsort(numbers, kind="stable")
        self._ends = np.cumsum(np.bincount(numbers, minlength=len(self._number)))

    def _numbered(self, path: Path) -> np.ndarray[Any, Any]:
        """Each row's query as a number; queries are numbered in order of first appearance."""
        column = pq.read_table(path, columns=["query_id"])["query_id"].combine_chunks()
        coded = column.dictionary_encode()
        names = coded.dictionary.to_pylist()
        known = self._number
        numbers = [known.setdefault(name, len(known)) for name in names]
        return np.array(numbers, np.int32)[coded.indices.to_numpy()]

    def rows(self, query_ids: Iterable[str]) -> np.ndarray[Any, Any]:
        """All rows of these queries, ascending."""
        numbers = [self._number[q] for q in query_ids if q in self._number]
        ends = self._ends
        parts = [self._rows[ends[n - 1] if n else 0 : ends[n]] for n in numbers]
        return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))


def unpacked(paths: Sequence[Path], columns: Sequence[str] | None) -> list[pa.Table]:
    """Each Parquet file as a memory-mapped table of one piece.

    Files of one schema share a map, of which a process may have 65,530. The maps are of temporary
    files below $TMPDIR that are unlinked at once: a process that is killed leaves none behind.

    Args:
        columns: the columns to read; None reads all.

    Raises:
        OSError: the disk is full.
    """
    tables: list[pa.Table] = []
    parts = (pq.read_table(path, columns=columns).combine_chunks() for path in paths)
    plain = (part.replace_schema_metadata() for part in parts)
    with tempfile.TemporaryDirectory(prefix="raypipe-rows-") as folder:
        for schema, alike in groupby(plain, key=lambda part: part.schema):
            copy, batches = str(Path(folder) / str(len(tables))), []
            with pa.ipc.new_file(copy, schema) as writer:
                for part in alike:
                    batches.append(len(part.to_batches()))
                    writer.write_table(part)
            reader = pa.ipc.open_file(pa.memory_map(copy))
            numbers = iter(range(reader.num_record_batches))
            for count in batches:
                mapped = [reader.get_batch(number) for number in islice(numbers, count)]
                tables.append(pa.Table.from_batches(mapped, schema))
    return tables
