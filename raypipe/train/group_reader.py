"""Reads groups for training: arrays of indices by row number, nothing loaded ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.storage.parts import arrow_parts

Array = np.ndarray[Any, Any]


class GroupReader:
    """A groups artifact, memory-mapped: arrays per group by row number."""

    def __init__(self, folder: Path) -> None:
        self.table = pa.concat_tables([reader.read_all() for reader in arrow_parts(folder)])
        column = {name: self.table.column(name) for name in self.table.column_names}
        self._queries: Array = column["query_index"].to_numpy()
        self._offsets, self._docs = _flat(column["doc_indices"])
        self._relevance = _flat(column["relevance"])[1]
        teacher = column["teacher_values"]
        self._teacher = None if teacher.null_count else _flat(teacher)[1]
        self._weights: Array | None = column["weight"].to_numpy() if "weight" in column else None
        self._compared: tuple[Array, ...] | None = None
        if "probabilities" in column:  # records.PAIRWISE_GROUPS
            offsets, probabilities = _flat(column["probabilities"])
            first, second = (_flat(column[name])[1] for name in ("first", "second"))
            self._compared = (offsets, first, second, probabilities)

    def __len__(self) -> int:
        return len(self._queries)

    @property
    def has_teacher(self) -> bool:
        return self._teacher is not None

    def weights(self, rows: list[int]) -> Array | None:
        """How much each of these groups counts; None where all count alike."""
        return None if self._weights is None else self._weights[rows]

    @property
    def compared(self) -> int | None:
        """Comparisons of a pairwise teacher in all groups; None without such a teacher."""
        return None if self._compared is None else len(self._compared[-1])

    def comparisons(self, row: int) -> tuple[Array, Array, Array]:
        """(first, second, probability that the first is better) of a group's comparisons.

        Documents are positions in the group. Only where `compared` is not None.
        """
        assert self._compared is not None
        offsets, *columns = self._compared
        part = slice(offsets[row], offsets[row + 1])
        first, second, probabilities = (column[part] for column in columns)
        return first, second, probabilities

    @property
    def documents(self) -> int:
        """Query-document pairs in all groups."""
        return len(self._docs)

    def values(self, groups: int) -> tuple[Array, Array]:
        """(relevance, teacher values or NaN) of all documents of the first `groups` groups."""
        part = slice(0, self._offsets[groups])
        return self._relevance[part], self._teacher_values(part)

    @property
    def sizes(self) -> Array:
        """Documents of every group."""
        return np.diff(self._offsets)

    @property
    def largest(self) -> int:
        """Documents of the largest group."""
        return int(self.sizes.max())

    def __getitem__(self, row: int) -> tuple[int, Array, Array, Array]:
        """(query index, document indices [D], relevance [D], teacher values or NaN [D])."""
        part = slice(self._offsets[row], self._offsets[row + 1])
        docs, relevance = self._docs[part], self._relevance[part]
        return int(self._queries[row]), docs, relevance, self._teacher_values(part)

    def _teacher_values(self, part: slice) -> Array:
        if self._teacher is None:
            return np.full(len(self._relevance[part]), np.nan)
        return self._teacher[part]


def _flat(column: pa.ChunkedArray) -> tuple[Array, Array]:
    """Offsets and values of a list column without nulls, chunks joined."""
    lengths = np.asarray(pa.compute.list_value_length(column))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return offsets, pa.compute.list_flatten(column).to_numpy()
