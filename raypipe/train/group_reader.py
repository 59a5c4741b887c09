"""Groups as training reads them: arrays of indices by row number, nothing loaded ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

Array = np.ndarray[Any, Any]


class GroupReader:
    """A groups artifact, memory-mapped: arrays per group by row number."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("part-*.arrow"))
        tables = [pa.ipc.open_file(pa.memory_map(str(p))).read_all() for p in paths]
        self.table = pa.concat_tables(tables)
        column = {name: self.table.column(name) for name in self.table.column_names}
        self._queries: Array = column["query_index"].to_numpy()
        offsets, self._docs = _flat(column["doc_indices"])
        self._offsets = offsets
        self._relevance = _flat(column["relevance"])[1]
        teacher = column["teacher_values"]
        self._teacher = None if teacher.null_count else _flat(teacher)[1]
        self._compared: tuple[Array, ...] | None = None
        if "probabilities" in column:  # records.PAIRWISE_GROUPS
            ends, probabilities = _flat(column["probabilities"])
            sides = (_flat(column[name])[1] for name in ("first", "second"))
            self._compared = (ends, *sides, probabilities)

    def __len__(self) -> int:
        return len(self._queries)

    @property
    def has_teacher(self) -> bool:
        return self._teacher is not None

    @property
    def compared(self) -> int | None:
        """Comparisons by a pairwise teacher in all groups; None if the teacher is no such one."""
        return None if self._compared is None else len(self._compared[-1])

    def comparisons(self, row: int) -> tuple[Array, Array, Array]:
        """(first, second, probability that the first is better) of a group's comparisons, the first
        two as positions in the group; only where `compared` is not None."""
        assert self._compared is not None
        ends, *columns = self._compared
        first, second, probabilities = (column[ends[row] : ends[row + 1]] for column in columns)
        return first, second, probabilities

    @property
    def documents(self) -> int:
        """Query-document pairs in all groups."""
        return len(self._docs)

    def values(self, groups: int) -> tuple[Array, Array]:
        """(relevance, teacher values) of all documents of the first groups, NaN if none."""
        part = slice(0, self._offsets[groups])
        relevance = self._relevance[part]
        known = self._teacher
        return relevance, np.full(len(relevance), np.nan) if known is None else known[part]

    @property
    def largest(self) -> int:
        """Documents of the largest group."""
        return int(np.diff(self._offsets).max())

    def __getitem__(self, row: int) -> tuple[int, Array, Array, Array]:
        """(query index, document indices [D], relevance [D], teacher values [D], NaN if none)."""
        part = slice(self._offsets[row], self._offsets[row + 1])
        docs = self._docs[part]
        teacher = np.full(len(docs), np.nan) if self._teacher is None else self._teacher[part]
        return int(self._queries[row]), docs, self._relevance[part], teacher


def _flat(column: pa.ChunkedArray) -> tuple[Array, Array]:
    """Offsets and values of a list column without nulls, chunks joined."""
    lengths = np.asarray(pa.compute.list_value_length(column))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return offsets, pa.compute.list_flatten(column).to_numpy()
