"""Stored vectors, read from their memory map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

Array = np.ndarray[Any, Any]


class Vectors:
    """All parts of an embeddings artifact as one matrix: memory-mapped, never copied whole."""

    def __init__(self, folder: Path) -> None:
        self.parts: list[Array] = []
        """[rows of the part, hidden] float32 each."""
        self.starts: list[int] = []
        """Row number of every part's first row."""
        self._total = 0
        for path in sorted(folder.glob("part-*.arrow")):
            column = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0).column(0)
            self.starts.append(self._total)
            self.parts.append(column.flatten().to_numpy().reshape(len(column), -1))
            self._total += len(column)

    def __len__(self) -> int:
        return self._total

    @property
    def width(self) -> int:
        return int(self.parts[0].shape[1])

    def take(self, rows: Array | Sequence[int]) -> Array:
        """[len(rows), hidden]: a copy of these rows, in the order given."""
        wanted = np.asarray(rows, dtype=np.int64)
        out = np.empty((len(wanted), self.width), dtype=np.float32)
        part_of = np.searchsorted(self.starts, wanted, side="right") - 1
        for part in np.unique(part_of):
            here = part_of == part
            out[here] = self.parts[part][wanted[here] - self.starts[part]]
        return out

    def blocks(self, rows: int) -> Iterator[tuple[int, Array]]:
        """(first row, mapped block of at most `rows` rows) through the whole matrix, in order."""
        for start, part in zip(self.starts, self.parts, strict=True):
            for at in range(0, len(part), rows):
                yield start + at, part[at : at + rows]
