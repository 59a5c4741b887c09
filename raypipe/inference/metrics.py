"""Runs that need no model (teacher, oracle) and the per-query metrics of any run."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.artifacts import Attempt, Step
from raypipe.data.sets import QRELS_FILE, Queries
from raypipe.evaluation.measures import evaluate, means, unjudged_queries
from raypipe.evaluation.ranking import oracle, rerank, write_trec_run
from raypipe.inference.rows import Rows
from raypipe.inference.teacher_values import TeacherValues

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
    """The first `depth` candidates in the teacher's order; what it does not know comes last."""

    teacher: Step
    teacher_kind: str
    candidates: Step
    queries: Queries
    depth: int

    kind: ClassVar[str] = "run"

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
            said = teacher.of_queries(part["query_id"].to_pylist())
            scores = {}
            for row in part.select(["query_id", "doc_ids"]).to_pylist():
                known = said.get(row["query_id"], {})
                values = [sign * known.get(d, np.nan) for d in row["doc_ids"][: self.depth]]
                unknown += int(np.isnan(values).sum())
                scores[row["query_id"]] = _behind(values)
            tables.append(rerank(part, scores, self.depth))
        run = pa.concat_tables(tables)
        attempt.put_table(run)
        return {"rows": run.num_rows, "documents_unknown_to_teacher": unknown}


def _behind(values: list[float]) -> list[float]:
    """NaN becomes less than every known value, in the order given."""
    floor = np.nanmin(values) if np.isfinite(values).any() else 0.0
    return [floor - 1 - place if np.isnan(v) else v for place, v in enumerate(values)]


@dataclass(frozen=True)
class Metrics(Step):
    """Every measure of every judged query, and the ranking as a TREC run file beside them."""

    run_step: Step
    """A run, or candidates: the first stage as it is."""
    queries: Queries
    measures: Sequence[str]

    kind: ClassVar[str] = "metrics"

    @property
    def name(self) -> str:
        return self.run_step.name

    def spec(self) -> Mapping[str, Any]:
        return {"measures": list(self.measures)}

    def inputs(self) -> Mapping[str, Step]:
        return {"run": self.run_step, "queries": self.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        run: pa.Table = attempt.inputs["run"].table()
        qrels = pq.read_table(attempt.inputs["queries"].local() / QRELS_FILE)
        found = evaluate(run, qrels, self.measures, self.queries.queries.positive_relevance)
        attempt.put_table(found, "per_query.parquet")
        text = io.StringIO()
        write_trec_run(text, run, self.name, score_from_rank=True)
        with attempt.open("run.trec") as sink:
            sink.write(text.getvalue().encode())
        return {
            "queries": len(found) // len(self.measures),
            "queries_of_the_run_without_qrels": unjudged_queries(run, qrels),
            "means": means(found),
        }
