"""Runs that need no model: the candidates in the order of the judgements, or of a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.datasets.steps import QRELS_FILE, Queries
from raypipe.evaluation.ranking import oracle, rerank
from raypipe.storage.artifacts import Attempt, Step
from raypipe.tables.rows import Rows
from raypipe.teachers.values import TeacherValues

BLOCK = 1024
"""Queries whose lists are Python objects at a time."""


@dataclass(frozen=True)
class OracleRun(Step):
    """The first `depth` candidates in the order of the judgements: what re-ranking could reach."""

    candidates: Step
    queries: Queries
    depth: int

    kind: ClassVar[str] = "run"

    @property
    def name(self) -> str:
        return f"oracle-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        return {"depth": self.depth}

    def inputs(self) -> Mapping[str, Step]:
        return {"candidates": self.candidates, "queries": self.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        qrels = pq.read_table(attempt.inputs["queries"].local() / QRELS_FILE)
        run = oracle(attempt.inputs["candidates"].table(), qrels, self.depth)
        attempt.put_table(run)
        return {"rows": run.num_rows}


@dataclass(frozen=True)
class TeacherRun(Step):
    """The first `depth` candidates in the teacher's order, documents without a value last."""

    teacher: Step
    teacher_kind: str
    candidates: Step
    queries: Queries
    depth: int

    kind: ClassVar[str] = "run"
    version: ClassVar[int] = 3  # documents that the teacher does not know stand last at any size

    @property
    def name(self) -> str:
        return f"teacher-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        return {"depth": self.depth, "teacher_kind": self.teacher_kind}

    def inputs(self) -> Mapping[str, Step]:
        return {"teacher": self.teacher, "candidates": self.candidates}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        sign = -1.0 if self.teacher_kind == "rank" else 1.0
        candidates = Rows(attempt.inputs["candidates"])
        teacher = TeacherValues(attempt.inputs["teacher"])
        tables, unknown = [], 0
        for start in range(0, len(candidates), BLOCK):
            part = candidates.read(range(start, min(start + BLOCK, len(candidates))))
            values_by_query = teacher.of_queries(part["query_id"].to_pylist())
            scores = {}
            for row in part.select(["query_id", "doc_ids"]).to_pylist():
                by_doc = values_by_query.get(row["query_id"], {})
                values = [sign * by_doc.get(d, np.nan) for d in row["doc_ids"][: self.depth]]
                unknown += int(np.isnan(values).sum())
                scores[row["query_id"]] = _unknown_last(values)
            tables.append(rerank(part, scores, self.depth))
        run = pa.concat_tables(tables)
        attempt.put_table(run)
        return {"rows": run.num_rows, "documents_unknown_to_teacher": unknown}


def _unknown_last(values: list[float]) -> list[float]:
    """NaNs become values below every known one, descending in the order given, in float32 too."""
    floor = float(np.nanmin(values)) if np.isfinite(values).any() else 0.0
    step = max(1.0, abs(floor) * 2.0**-22)  # a float32 has 24 bits
    return [
        floor - step * (1 + rank) if np.isnan(value) else value for rank, value in enumerate(values)
    ]
