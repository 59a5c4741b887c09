"""Runs as Parquet tables, a row per query: what `raypipe rerank --out x.parquet` writes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe.config import ConfigError
from raypipe.records import RUN


def is_run_table(path: str) -> bool:
    """Whether a run file is a table, told by its name."""
    return path.endswith(".parquet")


def open_run_table(path: str) -> pq.ParquetFile:
    """The file, with the columns query_id, doc_ids and scores.

    Raises:
        ConfigError: it is no Parquet file, or lacks a column.
    """
    try:
        file = pq.ParquetFile(Path(path).expanduser())
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"run file {path}: expected a Parquet table, found {error}; name a table that `raypipe "
            "rerank --out x.parquet` wrote, or a TREC run"
        ) from None
    names = file.schema_arrow.names
    if missing := [name for name in RUN.names if name not in names]:
        raise ConfigError(
            f"run file {path}: expected the columns {RUN.names}, found {names} without {missing}; "
            "name a table that `raypipe rerank --out x.parquet` wrote, or a TREC run"
        )
    return file


def check_run_row(
    path: str, query_id: str, doc_ids: list[str], scores: list[float], again: bool
) -> None:
    """Refuse a list that cannot be read as one.

    Args:
        again: whether an earlier row has the query.

    Raises:
        ConfigError: it is the query's second, scores and documents are not equally many, or a score
            is NaN or infinite.
    """
    problem = None
    if again:
        problem = "expected one row, found a second; keep one of them"
    elif len(doc_ids) != len(scores):
        problem = f"expected as many scores as documents, found {len(scores)} and {len(doc_ids)}"
    elif not np.isfinite(np.array(scores, np.float64)).all():
        problem = "expected finite scores, found NaN or infinity; score again"
    if problem is not None:
        raise ConfigError(f"run file {path}: query {query_id!r}: {problem}")


def read_run_table(path: str, wanted: Collection[str]) -> tuple[pa.Table, int]:
    """The lists of some queries, best document first, and how many lines other queries have.

    Raises:
        ConfigError: a table of other columns, or a list that cannot be read as one.
    """
    everything = open_run_table(path).read(columns=RUN.names).cast(RUN)
    table = everything.filter(pc.is_in(everything["query_id"], pa.array(wanted, pa.string())))
    seen: set[str] = set()
    for row in table.to_pylist():
        check_run_row(path, **row, again=row["query_id"] in seen)
        seen.add(row["query_id"])
    others = _lines(everything) - _lines(table)
    return table.filter(pc.greater(pc.list_value_length(table["doc_ids"]), 0)), others


def _lines(table: pa.Table) -> int:
    return pc.sum(pc.list_value_length(table["doc_ids"])).as_py() or 0
