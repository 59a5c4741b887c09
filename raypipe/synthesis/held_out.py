"""Which documents leave training, and the lists of training queries without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from raypipe.config import Config
from raypipe.records import CANDIDATES
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.synthesis.passages import Passages, read_left_out
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.rows import Rows

CHUNK = 4096


class HeldOut(Config):
    """Passages for the split `test`, which training never sees."""

    passages: int = Field(ge=1)
    """How many, drawn first. Queries of every type are written for them."""


@dataclass(frozen=True)
class Trainable(Step):
    """Candidates less held-out passages and copies of others; ranks count anew."""

    candidates: Step
    passages: Passages

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"{self.candidates.name}-trainable"

    def inputs(self) -> Mapping[str, Step]:
        return {"candidates": self.candidates, "passages": self.passages}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        job = LeaveOut(attempt.inputs["candidates"], attempt.inputs["passages"])
        rows = len(Rows(attempt.inputs["candidates"]))
        return run_chunks(job, rows, CHUNK, attempt, context, model=False)


@dataclass(frozen=True)
class LeaveOut:
    """The job of `Trainable`."""

    candidates: Artifact
    passages: Artifact

    def build(self) -> Work:
        lists = Rows(self.candidates)
        left_out = read_left_out(self.passages)

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            before = lists.read(chunk).to_pylist()
            rows = [without_documents(row, left_out) for row in before]
            sizes = [sum(len(row["doc_ids"]) for row in some) for some in (before, rows)]
            counts = {
                "candidates": sizes[1],
                "candidates_left_out": sizes[0] - sizes[1],
                "queries_without_candidates": sum(not row["doc_ids"] for row in rows),
            }
            return pa.Table.from_pylist(rows, schema=CANDIDATES), counts

        return work


def without_documents(row: Mapping[str, Any], left_out: set[str]) -> dict[str, Any]:
    """A row of CANDIDATES less some documents."""
    kept = [at for at, doc_id in enumerate(row["doc_ids"]) if doc_id not in left_out]
    columns = {name: [row[name][at] for at in kept] for name in ("doc_ids", "scores", "sources")}
    return {"query_id": row["query_id"], "ranks": range(1, len(kept) + 1), **columns}
