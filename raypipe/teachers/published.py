"""Teachers that are files: a published re-ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from raypipe.artifacts import Attempt, Step
from raypipe.config import Config
from raypipe.data.collection import read_docs
from raypipe.data.sets import DOCS_FILE, QUERIES_FILE
from raypipe.files import file_checksum
from raypipe.inference.runfiles import check_files, read_for
from raypipe.records import TEACHER
from raypipe.teachers.base import Lists


class RunFile(Config):
    """The order of a TREC run, such as an LLM's re-ranking; its scores are not used."""

    type: Literal["run_file"] = "run_file"
    paths: tuple[str, ...] = Field(min_length=1)
    """One or more run files, plain or .gz."""

    values: ClassVar[Literal["score", "rank"]] = "rank"
    label: ClassVar[str] = "run file"

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that reads the files."""
        return RunFileRanks(self.paths, lists)

    def check(self) -> None:
        """The files exist."""
        check_files(self.paths)


@dataclass(frozen=True)
class RunFileRanks(Step):
    """Rank of every document of the file, 1 is best; queries without a list have no row."""

    paths: tuple[str, ...]
    lists: Lists

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"run_file-{self.lists.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        return {"files": [file_checksum(Path(path).expanduser()) for path in self.paths]}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.lists.collection, "queries": self.lists.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        known = read_docs(attempt.inputs["collection"].local() / DOCS_FILE).ids()
        queries = read_docs(attempt.inputs["queries"].local() / QUERIES_FILE).ids().to_pylist()
        rows, counts = read_for(self.paths, set(queries), known, None)
        out = [
            {"query_id": r["query_id"], "doc_ids": r["doc_ids"], "values": r["ranks"]} for r in rows
        ]
        attempt.put_table(pa.Table.from_pylist(out, schema=TEACHER))
        return {**counts, "queries_without_list": len(queries) - len(rows)}
