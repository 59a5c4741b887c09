"""Tables that are read at any row, again and again: an unpacked copy, mapped into memory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def unpacked(paths: Sequence[Path], columns: Sequence[str] | None) -> list[pa.Table]:
    """The columns of each Parquet file, None for all, as one table of one piece.

    The copies are temporary files below $TMPDIR that are unlinked at once: the memory maps keep
    them, and a process that is killed leaves none behind.

    Raises:
        OSError: the disk is full.
    """
    tables = []
    with tempfile.TemporaryDirectory(prefix="raypipe-rows-") as folder:
        for number, path in enumerate(paths):
            table = pq.read_table(path, columns=columns).combine_chunks()
            copy = str(Path(folder) / str(number))
            with pa.ipc.new_file(copy, table.schema) as writer:
                writer.write_table(table)
            tables.append(pa.ipc.open_file(pa.memory_map(copy)).read_all())
    return tables
