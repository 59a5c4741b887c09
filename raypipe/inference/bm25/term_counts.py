"""The counted terms of documents, read from their memory map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TermSlice:
    """Documents of one part: `sizes` and `lengths` per document, the others per distinct term."""

    part: int
    terms: Array
    """Place in the part's vocabulary."""
    counts: Array
    sizes: Array
    """Distinct terms of each document."""
    lengths: Array
    """All terms of each document."""


class TermCounts:
    """Reads what `Bm25Terms` wrote, from its memory map."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("part-*.arrow"))
        self._parts = [pa.ipc.open_file(pa.memory_map(str(p))).get_batch(0) for p in paths]
        self.vocabularies = [part.column("terms").values.dictionary for part in self._parts]
        """Per part its documents' terms: strings, sorted."""

    def __len__(self) -> int:
        """Documents."""
        return sum(part.num_rows for part in self._parts)

    def slices(self, rows: range) -> Iterator[TermSlice]:
        """The documents `rows`, a run of neighbours, in order."""
        start = 0
        for number, part in enumerate(self._parts):
            low, high = max(rows.start - start, 0), min(rows.stop - start, part.num_rows)
            start += part.num_rows
            if low >= high:
                continue
            offsets = part.column("terms").offsets.to_numpy()[low : high + 1]
            span = slice(offsets[0], offsets[-1])
            counts = part.column("counts").values.to_numpy()[span]
            ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
            yield TermSlice(
                number,
                part.column("terms").values.indices.to_numpy()[span],
                counts,
                np.diff(offsets),
                np.diff(ends[offsets - offsets[0]]),
            )
