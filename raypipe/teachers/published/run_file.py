"""TREC run files as teachers: the order of the rank column, or the scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from raypipe.candidates.trec_run import check_match, spill_runs
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.inference.lists import Lists
from raypipe.records import TEACHER
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import checksums, full_paths
from raypipe.tables.flat import nest
from raypipe.tables.spill import spill, write_lists
from raypipe.tables.text_table import TextTable


@dataclass(frozen=True)
class RunFileValues(Step):
    """The rank of every document of the file, 1 is best, or its score; one row per query.

    The files may have any number of rows, as those of `RunFileCandidates`.
    """

    paths: tuple[str, ...]
    column: Literal["rank", "score"]
    lists: Lists
    """All documents of the file count, whether they are candidates or not."""

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"run_file-{self.lists.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        return {"format": "run_file", "values": self.column, "files": checksums(self.paths)}

    def facts(self) -> Mapping[str, Any]:
        return {"values": self.column, "paths": full_paths(self.paths)}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.lists.collection, "queries": self.lists.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        queries = TextTable(attempt.inputs["queries"].local() / QUERIES_FILE).ids().to_pylist()
        with spill() as rows:
            counts = spill_runs(self.paths, rows, queries)
            counts.update(write_lists(rows, attempt, queries, docs, None, self._table))
        check_match(self.paths, len(queries), counts)
        counts["queries_without_list"] = counts.pop("queries_without_candidates")
        return dict(counts)

    def _table(self, found: pa.Table, query_ids: list[str]) -> pa.Table:
        lists = nest(found, query_ids, pa.nulls(found.num_rows, pa.string()))
        values = lists[{"rank": "ranks", "score": "scores"}[self.column]]
        columns = [lists["query_id"], lists["doc_ids"], values.cast(TEACHER.field("values").type)]
        return pa.table(columns, schema=TEACHER)
