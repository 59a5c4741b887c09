"""Ranked rows in any order and number become lists, in bounded memory, through temporary files.

A spill writes incoming rows to one local file per chunk of queries. Then every chunk is sorted,
cut, matched with the collection and written as part-<chunk>.parquet: only one chunk's rows are in
memory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.storage.artifacts import Attempt
from raypipe.storage.parts import part_name
from raypipe.tables.flat import FLAT, nest, settle
from raypipe.tables.text_table import TextTable

CHUNK = 2048
"""Queries per file."""
PENDING = 64 << 20
"""Bytes of rows in memory before a spill writes them to its files."""


@dataclass
class Spill:
    """Rows on local disk, one file per chunk of queries; `query` is a row of the query set."""

    folder: Path
    schema: pa.Schema
    """FLAT, perhaps with another type of `order` or `score`."""
    _pending: list[pa.Table] = field(default_factory=list)
    _bytes: int = 0

    def add(self, rows: pa.Table) -> None:
        """Keep the rows; columns beside the schema's are dropped.

        Raises:
            OSError: the disk of the temporary files is full.
        """
        if rows.num_rows:
            self._pending.append(rows.select(self.schema.names))
            self._bytes += rows.nbytes
        if self._bytes > PENDING:
            self._flush()

    def read(self, chunk: int) -> pa.Table:
        """All rows of the queries from chunk * CHUNK on, as they came; `query` counts from 0."""
        self._flush()
        path = self.folder / str(chunk)
        tables = [self.schema.empty_table()]
        if path.exists():
            with path.open("rb") as file:
                while file.tell() < path.stat().st_size:
                    tables.append(pa.ipc.open_stream(file).read_all())
        return pa.concat_tables(tables)

    def _flush(self) -> None:
        if not self._pending:
            return
        table = pa.concat_tables(self._pending).combine_chunks()
        self._pending, self._bytes = [], 0
        query = table["query"].to_numpy()
        order = np.argsort(query, kind="stable")
        table, query = table.take(order), query[order]
        chunks = np.arange(query[0] // CHUNK, query[-1] // CHUNK + 2)
        bounds = np.searchsorted(query, chunks * CHUNK)
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        for chunk, start, stop in zip(chunks, bounds, bounds[1:], strict=False):
            if stop == start:
                continue
            local = pa.array(query[start:stop] - np.int32(chunk * CHUNK))
            rows = table.slice(start, stop - start).set_column(0, self.schema.field("query"), local)
            # One more stream at the end of the file: no chunk keeps a file open.
            with (
                _full_disk_named(self.folder),
                (self.folder / str(chunk)).open("ab") as file,
                pa.ipc.new_stream(file, self.schema, options=options) as writer,
            ):
                writer.write_table(rows)


@contextlib.contextmanager
def spill(schema: pa.Schema = FLAT) -> Iterator[Spill]:
    """A spill below $TMPDIR that is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="raypipe-spill-") as folder:
        yield Spill(Path(folder), schema)


@contextlib.contextmanager
def _full_disk_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        remedy = f"the temporary files in {folder} do not fit; set TMPDIR to a larger disk"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {remedy}") from None


def write_candidates(
    rows: Spill,
    attempt: Attempt,
    query_ids: list[str],
    docs: TextTable,
    depth: int,
    source: str,
    *,
    as_listed: bool = False,
) -> Counter[str]:
    """Write every query's first `depth` documents as CANDIDATES.

    Args:
        source: the value of `sources`; the other arguments, and the counts, are `write_lists`'.
    """

    def table(flat: pa.Table, ids: list[str]) -> pa.Table:
        return nest(flat, ids, pa.repeat(pa.scalar(source, pa.string()), flat.num_rows))

    return write_lists(rows, attempt, query_ids, docs, depth, table, as_listed=as_listed)


def write_lists(
    rows: Spill,
    attempt: Attempt,
    query_ids: list[str],
    docs: TextTable,
    depth: int | None,
    table: Callable[[pa.Table, list[str]], pa.Table],
    *,
    as_listed: bool = False,
) -> Counter[str]:
    """Write every query's first `depth` documents, without those that the collection lacks.

    Args:
        query_ids: those of the whole query set, in its order; a query without rows gets an empty
            list.
        docs: the collection.
        depth: rows per query before unknown documents leave; None takes all. Ranks are counted
            after they have left.
        table: given settled FLAT rows of some queries and these queries' ids, the table to write.
        as_listed: as in `settle`.

    Returns:
        Counts: `kept` rows, after `duplicates` and what was `beyond_depth` left; of them
        `candidates`, the others being `unknown_documents`; `queries_without_candidates`, and
        `queries_with_constant_scores` (two documents or more, all with one score). `as_listed` also
        `queries_with_scores_against_ranks` (a document scores higher than the one before it), and
        `queries_ordered_by_score` (documents of one rank have several scores).
    """
    counts: Counter[str] = Counter(duplicates=0, beyond_depth=0, kept=0, unknown_documents=0)
    for chunk in range(-(-len(query_ids) // CHUNK)):
        settled, duplicates, beyond = settle(rows.read(chunk), depth, as_listed=as_listed)
        known = settled.filter(pa.array(docs.rows_of(settled["doc_id"]) >= 0))
        unknown = settled.num_rows - known.num_rows
        counts.update(duplicates=duplicates, beyond_depth=beyond)
        counts.update(kept=settled.num_rows, unknown_documents=unknown)
        ids = query_ids[chunk * CHUNK : (chunk + 1) * CHUNK]
        counts.update(_count(known, len(ids)))
        if as_listed:
            counts.update(_order_counts(known))
        attempt.put_table(table(known, ids), part_name(chunk))
    return counts


def _count(flat: pa.Table, queries: int) -> dict[str, int]:
    """Counters of a chunk's queries, from its settled rows with known documents."""
    query, score = flat["query"].to_numpy(), flat["score"].to_numpy().astype(np.float32)
    sizes = np.bincount(query, minlength=queries)
    differs = (query[1:] == query[:-1]) & (score[1:] != score[:-1])
    varied = np.bincount(query[1:][differs], minlength=queries) > 0
    return {
        "candidates": flat.num_rows,
        "queries_without_candidates": int((sizes == 0).sum()),
        "queries_with_constant_scores": int(((sizes > 1) & ~varied).sum()),
    }


def _order_counts(flat: pa.Table) -> dict[str, int]:
    """Lists in which scores contradict the order, and in which they decided it."""
    query, order = flat["query"].to_numpy(), flat["order"].to_numpy()
    rise = np.where(query[1:] == query[:-1], np.diff(flat["score"].to_numpy()), 0.0)
    tied = order[1:] == order[:-1]
    return {
        "queries_with_scores_against_ranks": len(np.unique(query[1:][rise > 0])),
        "queries_ordered_by_score": len(np.unique(query[1:][tied & (rise < 0)])),
    }
