"""Documents or queries in one Arrow IPC file, read by memory map; a row's number is its index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.config import ConfigError
from raypipe.records import DOCS, QUERIES
from raypipe.tables.ids import Asked, SortedIds, open_ids


class TextTable:
    """Memory-mapped documents or queries: random access by row, nothing is loaded ahead."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        reader = pa.ipc.open_file(pa.memory_map(self.path))
        if reader.schema not in (DOCS, QUERIES):
            raise ConfigError(
                f"{path}: expected columns {DOCS.names} or {QUERIES.names}, found "
                f"{reader.schema.names}; name a file of documents or queries"
            )
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._ends = np.cumsum([batch.num_rows for batch in self._batches], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def ids(self) -> pa.ChunkedArray:
        """All ids in row order, string, still in the file's memory map."""
        return pa.chunked_array([batch.column(0) for batch in self._batches], pa.string())

    def ids_at(self, rows: np.ndarray) -> pa.Array:
        """The ids of some rows, in the order asked for; no other id is copied."""
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], np.append(0, self._ends))
        parts = [pa.array([], pa.string())]
        for number in np.flatnonzero(np.diff(bounds)):
            batch = self._batches[number]
            first = self._ends[number] - batch.num_rows
            within = rows[order[bounds[number] : bounds[number + 1]]] - first
            parts.append(batch.column(0).take(pa.array(within)))
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return pa.concat_arrays(parts).take(pa.array(back))

    @cached_property
    def _sorted(self) -> SortedIds:
        return open_ids(self.path)

    def rows_of(self, asked: Asked) -> np.ndarray:
        """The row of each id, int64; -1 where the file does not have it."""
        return self._sorted.rows_of(asked)

    def row_of(self, text_id: str) -> int:
        """The row of one id, -1 where the file does not have it."""
        return self._sorted.row_of(text_id)

    def places(self) -> np.ndarray:
        """The place of every row's id among all ids in ascending order, int64: breaks ties."""
        return self._sorted.places()

    def text(self, index: int) -> str:
        """The text of row `index` in [0, len).

        Raises:
            IndexError: `index` is outside; negative ones too, as -1 means "unknown" elsewhere.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"document index {index}: expected 0 to {len(self) - 1}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        batch = self._batches[number]
        return batch.column(1)[int(index - self._ends[number] + batch.num_rows)].as_py()

    def texts(self, indices: Iterable[int]) -> list[str]:
        """The texts of several rows, in the order asked for."""
        return [self.text(index) for index in indices]

    def iter_texts(self, rows: range | None = None) -> Iterator[str]:
        """The texts of neighbouring rows in their order, one batch in memory at a time.

        Args:
            rows: of step 1, all of them in [0, len); None is all.
        """
        wanted = range(len(self)) if rows is None else rows
        for end, batch in zip(self._ends, self._batches, strict=True):
            first = int(end) - batch.num_rows
            low, high = max(wanted.start - first, 0), min(wanted.stop - first, batch.num_rows)
            if low < high:
                yield from batch.column(1).slice(low, high - low).to_pylist()
