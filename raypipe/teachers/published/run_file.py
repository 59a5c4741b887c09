"""TREC run files as teachers: their ranks, or their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from raypipe.candidates.trec_run import check_match, order_spec, spill_runs, tell_order, tell_scores
from raypipe.config import Config
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.inference.lists import Lists
from raypipe.records import TEACHER
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import check_files, checksums, full_paths
from raypipe.tables.flat import nest
from raypipe.tables.spill import spill, write_lists
from raypipe.tables.text_table import TextTable
from raypipe.tables.trec_run import RANKED


class RunFile(Config):
    """A TREC run, such as an LLM's re-ranking: its order, or its scores.

    The rank column is the order; documents that share a rank stand by score."""

    type: Literal["run_file"] = "run_file"
    paths: tuple[str, ...] = Field(min_length=1)
    """One or more run files, plain or .gz."""
    column: Literal["rank", "score"] = "rank"
    """Which column counts; a re-ranking often keeps the scores of the list it re-ranked."""

    title: ClassVar[str] = "run file"
    needs_lists: ClassVar[bool] = False

    @property
    def values(self) -> Literal["score", "rank"]:
        return self.column

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that reads the files."""
        return RunFileValues(self, lists)

    def check(self) -> None:
        """The files exist."""
        check_files(self.paths)


@dataclass(frozen=True)
class RunFileValues(Step):
    """The rank (1 is best) or the score of every document of the files; one row per query.

    The files may have any number of rows: they are read once, and spilled to local disk.
    """

    teacher: RunFile
    lists: Lists
    """All documents of the file count, whether they are candidates or not."""

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"run_file-{self.lists.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        files = checksums(self.teacher.paths)
        plain = {"format": "run_file", "values": self.teacher.column, "files": files}
        return plain | order_spec(self.teacher.paths)

    def facts(self) -> Mapping[str, Any]:
        return {"values": self.teacher.column, "paths": full_paths(self.teacher.paths)}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.lists.collection, "queries": self.lists.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        queries = TextTable(attempt.inputs["queries"].local() / QUERIES_FILE).ids().to_pylist()
        with spill(RANKED) as rows:
            counts = spill_runs(self.teacher.paths, rows, queries)
            counts.update(
                write_lists(rows, attempt, queries, docs, None, self._table, as_listed=True)
            )
        check_match(self.teacher.paths, len(queries), counts)
        if self.teacher.column == "rank":
            tell_order(self.teacher.paths, counts)
        else:
            tell_scores(self.teacher.paths, len(queries), counts)
        counts["queries_without_list"] = counts.pop("queries_without_candidates")
        return dict(counts)

    def _table(self, flat: pa.Table, query_ids: list[str]) -> pa.Table:
        lists = nest(flat, query_ids, pa.nulls(flat.num_rows, pa.string()))
        values = lists["ranks" if self.teacher.column == "rank" else "scores"]
        columns = [lists["query_id"], lists["doc_ids"], values.cast(TEACHER.field("values").type)]
        return pa.table(columns, schema=TEACHER)
