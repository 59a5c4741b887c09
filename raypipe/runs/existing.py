"""Runs that exist, such as another system's: rows of the table that are judged and not made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from raypipe.candidates.trec_run import check_match, order_spec, spill_runs
from raypipe.config import Config, ConfigError
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.evaluation.results import MAIN
from raypipe.names import Name, path_part
from raypipe.records import RUN
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import check_files, checksums, full_paths
from raypipe.tables.flat import nest
from raypipe.tables.run_table import check_run_row, is_run_table, open_run_table
from raypipe.tables.spill import Spill, spill, write_lists
from raypipe.tables.text_table import TextTable
from raypipe.tables.trec_run import RANKED, read_lines

_BATCH = 1024  # queries of a table in memory at a time


class RunRow(Config):
    """A run that exists, as a row: its files are read, checked and judged as they are.

    A TREC run, plain or .gz, whose rank column is the order, or a table of `raypipe rerank`."""

    type: Literal["run"] = "run"
    path: str | None = None
    """The file with the recipe's own test queries."""
    sets: dict[Name, str] = Field(default_factory=dict)
    """Files of further test sets, by the set's name. On a set without a file the row is missing."""

    @model_validator(mode="after")
    def _somewhere(self) -> RunRow:
        if not self.paths():
            raise ValueError("path: expected a run file here or in sets, found none; name one")
        return self

    def paths(self) -> dict[str, str]:
        """File by test set."""
        return ({} if self.path is None else {MAIN: self.path}) | self.sets

    def check(self) -> None:
        """The files are there, and tables have the columns of runs.

        Raises:
            ConfigError: a file is not.
        """
        for path in self.paths().values():
            check_files([path])
            if is_run_table(path):
                open_run_table(path)


def queries_in(path: str) -> set[str]:
    """The queries that a run file has.

    Raises:
        ConfigError: a malformed line, or a table of other columns.
    """
    found: set[str] = set()
    if is_run_table(path):
        for batch in open_run_table(path).iter_batches(columns=["query_id"]):
            found.update(map(str, batch["query_id"].to_pylist()))
        return found

    def unwanted(query_id: str) -> int:
        found.add(query_id)
        return -1

    try:
        for _ in read_lines(Path(path).expanduser(), unwanted, Counter()):
            pass
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return found


@dataclass(frozen=True)
class ExistingRun(Step):
    """The file's lists of a query set, in its order, without documents that have no text."""

    row: str
    """The row's name, for people."""
    file: str
    collection: Collection
    queries: Queries

    kind: ClassVar[str] = "run"

    @property
    def name(self) -> str:
        return f"{path_part(self.row)}-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        (checksum,) = checksums([self.file])
        if is_run_table(self.file):
            return {"file": checksum, "format": "table"}
        return {"file": checksum, "format": "trec", **order_spec([self.file])}

    def facts(self) -> Mapping[str, Any]:
        return {"paths": full_paths([self.file])}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection, "queries": self.queries}

    def alarms(self, counts: Mapping[str, Any]) -> Sequence[str]:
        return list(_remarks(self.file, counts))

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        queries = TextTable(attempt.inputs["queries"].local() / QUERIES_FILE).ids().to_pylist()
        read = _spill_table if is_run_table(self.file) else _spill_lines
        with spill(RANKED) as rows:
            counts = read(self.file, rows, queries)
            counts.update(write_lists(rows, attempt, queries, docs, None, _table, as_listed=True))
        check_match([self.file], len(queries), counts)
        return {"queries": len(queries), **counts}


def _table(flat: pa.Table, query_ids: list[str]) -> pa.Table:
    return nest(flat, query_ids, pa.nulls(flat.num_rows, pa.string())).select(RUN.names).cast(RUN)


def _remarks(path: str, counts: Mapping[str, Any]) -> Iterator[str]:
    """What a reader of the row should know of the file."""
    if missing := counts["queries_without_candidates"]:
        yield f"{missing} of {counts['queries']} queries have no list in {path}; they count as 0"
    if unknown := counts["unknown_documents"]:
        yield f"{unknown} lines of {path} name documents that the collection lacks; they left"
    if other := counts["other_queries"]:
        yield f"{other} lines of {path} are of queries that are not judged here"
    if twice := counts["duplicates"]:
        yield f"{twice} lines of {path} name a document of the same list again"
    if tied := counts["queries_ordered_by_score"]:
        yield f"the ranks of {tied} lists of {path} tell no order; these are ordered by score"


def _spill_lines(path: str, rows: Spill, queries: list[str]) -> Counter[str]:
    return spill_runs([path], rows, queries)


def _spill_table(path: str, rows: Spill, queries: list[str]) -> Counter[str]:
    """As `spill_runs`, of a table with one row per query, best document first.

    Raises:
        ConfigError: a query has two rows, scores and documents are not equally many, or a score is
            NaN or infinite.
    """
    row_of = {query_id: row for row, query_id in enumerate(queries)}
    counts: Counter[str] = Counter(lines=0, other_queries=0)
    seen: set[int] = set()
    for batch in open_run_table(path).iter_batches(batch_size=_BATCH, columns=RUN.names):
        for row in batch.to_pylist():
            query_id, doc_ids, scores = (row[name] for name in RUN.names)
            counts["lines"] += len(doc_ids)
            query = row_of.get(query_id, -1)
            if query < 0:
                counts["other_queries"] += len(doc_ids)
                continue
            check_run_row(path, query_id, doc_ids, scores, query in seen)
            seen.add(query)
            size = len(doc_ids)
            columns = [np.full(size, query, np.int32), doc_ids, np.arange(size), scores]
            arrays = [pa.array(c, f.type) for c, f in zip(columns, RANKED, strict=True)]
            rows.add(pa.table(arrays, schema=RANKED))
    return counts
