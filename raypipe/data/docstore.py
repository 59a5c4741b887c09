"""Documents in one Arrow IPC file: written in a stream, read by memory map, row number = index."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from raypipe.config import ConfigError
from raypipe.data.dataset import Dataset
from raypipe.progress import watched
from raypipe.records import DOCS, QUERIES
from raypipe.tables.ids import Asked, SortedIds, open_ids

_SPACE = re.compile(r"\s")


def write_docs(
    dataset: Dataset, sink: str | Path | BinaryIO, batch_rows: int = 4096
) -> dict[str, int]:
    """Stream the documents into an uncompressed Arrow IPC file with schema `records.DOCS`.

    Memory: one batch and the set of ids. Rows keep the data set's order.

    Args:
        sink: local path, or a binary file object, which stays open.

    Returns:
        `docs` written, `empty_docs` without text and `duplicate_docs` whose id came before (the
        first stays, even where it was empty), and the data set's own counts.

    Raises:
        ConfigError: an id is empty or has white space, or no document has text.
    """
    counts = {"docs": 0, "empty_docs": 0, "duplicate_docs": 0}
    target = str(sink) if isinstance(sink, str | Path) else sink
    total = dataset.docs_count()
    bar = watched("documents", total, lambda: sum(counts.values())) if total else nullcontext()
    with bar, pa.ipc.new_file(target, DOCS) as writer:
        for rows in _batched(_usable(dataset, counts), batch_rows):
            writer.write_batch(pa.record_batch([list(c) for c in zip(*rows, strict=True)], DOCS))
            counts["docs"] += len(rows)
    if not counts["docs"]:
        raise ConfigError(f"dataset {dataset.name}: no document has text; found {counts}")
    return {**counts, **dataset.counts()}


def _usable(dataset: Dataset, counts: dict[str, int]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for doc_id, text in dataset.docs():
        check_id(dataset.name, "document", doc_id)
        if doc_id in seen:
            counts["duplicate_docs"] += 1
            continue
        seen.add(doc_id)
        if text:
            yield doc_id, text
        else:
            counts["empty_docs"] += 1


def _batched(rows: Iterable[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def check_id(where: str, kind: str, value: str) -> None:
    """Refuse an id that a TREC run or qrels file, with its white-space columns, cannot hold."""
    if not value or _SPACE.search(value):
        raise ConfigError(
            f"dataset {where}: expected a {kind} id without white space, found {value!r}; "
            "TREC files cannot hold it, so rename it"
        )


class DocTable:
    """Memory-mapped documents or queries: random access by row, nothing loaded ahead."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        reader = pa.ipc.open_file(pa.memory_map(self.path))
        if reader.schema not in (DOCS, QUERIES):
            raise ConfigError(
                f"{path}: expected columns {DOCS.names} or {QUERIES.names}, found "
                f"{reader.schema.names}; it is not a file of documents or queries"
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

    def row_of(self, asked: str) -> int:
        """The row of one id, -1 where the file does not have it."""
        return self._sorted.row_of(asked)

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

    def iter_texts(self) -> Iterator[str]:
        """All texts in row order, one batch in memory at a time."""
        for batch in self._batches:
            yield from batch.column(1).to_pylist()


def read_docs(path: str | Path) -> DocTable:
    """Open a file of documents or queries; its pages are read when they are touched."""
    return DocTable(path)
