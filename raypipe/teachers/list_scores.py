"""The scores that candidates come with as a teacher's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from raypipe.config import Config
from raypipe.inference.lists import ListReader, Lists
from raypipe.records import TEACHER
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks

CHUNK = 4096


class ListScores(Config):
    """The scores of the training candidates themselves: those of a first stage, or of a teacher
    that has ordered them (`filter.lists` of synthetic queries). Nothing is scored again."""

    type: Literal["list_scores"] = "list_scores"

    values: ClassVar[Literal["score", "rank"]] = "score"
    needs_lists: ClassVar[bool] = False

    @property
    def title(self) -> str:
        return "scores of the candidates"

    def check(self) -> None:
        """There is nothing outside."""

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that reads them."""
        return ScoresOfLists(lists)


@dataclass(frozen=True)
class ScoresOfLists(Step):
    """A candidate's score as its value; a document that is no candidate has none."""

    lists: Lists

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"list-scores-{self.lists.name}"[:90]

    def spec(self) -> Mapping[str, Any]:
        return {"depth": self.lists.depth}

    def facts(self) -> Mapping[str, Any]:
        return {"values": "score"}

    def inputs(self) -> Mapping[str, Step]:
        return self.lists.inputs()

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        job = ReadScores(dict(attempt.inputs), self.lists.depth)
        rows = len(ListReader(attempt.inputs, self.lists.depth))
        return run_chunks(job, rows, CHUNK, attempt, context, model=False)


@dataclass(frozen=True)
class ReadScores:
    """The job of `ScoresOfLists`."""

    inputs: dict[str, Artifact]
    depth: int

    def build(self) -> Work:
        lists = ListReader(self.inputs, self.depth)

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            rows, missing = [], 0
            for listed in lists.read(chunk):
                known = [doc_id for doc_id in listed.doc_ids if doc_id in listed.first_stage]
                missing += len(listed.doc_ids) - len(known)
                values = [listed.first_stage[doc_id] for doc_id in known]
                rows.append({"query_id": listed.query_id, "doc_ids": known, "values": values})
            counts = {
                "documents": sum(len(row["doc_ids"]) for row in rows),
                "documents_without_value": missing,
            }
            return pa.Table.from_pylist(rows, schema=TEACHER), counts

        return work
