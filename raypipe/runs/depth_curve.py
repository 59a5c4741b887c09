"""What a row would reach with fewer candidates re-ranked, from its one scoring at the full depth.

The first d candidates in the order of the run, the others behind them in first-stage order: that is
the run re-ranked to depth d, of every model that scores documents one by one. Mixes and ensembles
scale scores over a whole list; theirs stay those of the full depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.datasets.steps import QRELS_FILE, Queries
from raypipe.evaluation.comparison import tested
from raypipe.evaluation.measures import cutoff, evaluate
from raypipe.evaluation.own_measures import own_code
from raypipe.evaluation.ranking import rerank_to
from raypipe.runs.baselines import TeacherRun
from raypipe.runs.combined import blocks
from raypipe.runs.metrics import Metrics
from raypipe.storage.artifacts import Attempt, Step
from raypipe.tables.rows import Rows
from raypipe.teachers.ensemble import CombinedScores

DEPTHS = (10, 20, 50, 100, 200)
"""Depths that are looked at, as far as a run was scored."""


@dataclass(frozen=True)
class DepthCurve(Step):
    """A measure of every judged query at several depths."""

    run_step: Step
    """A run whose first `depths[-1]` candidates were scored."""
    candidates: Step
    """What the run re-ranked."""
    queries: Queries
    measure: str
    depths: tuple[int, ...]
    """Rising."""

    kind: ClassVar[str] = "depth_curve"

    @property
    def name(self) -> str:
        return self.run_step.name

    def spec(self) -> Mapping[str, Any]:
        plain = {"measure": str(self.measure), "depths": list(self.depths)}
        return plain | own_code([self.measure])

    def inputs(self) -> Mapping[str, Step]:
        return {"run": self.run_step, "candidates": self.candidates, "queries": self.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        qrels = pq.read_table(attempt.inputs["queries"].local() / QRELS_FILE)
        relevance = self.queries.queries.positive_relevance
        run, most = Rows(attempt.inputs["run"], ["query_id", "doc_ids"]), cutoff(self.measure)
        lists: dict[int, list[pa.Table]] = {depth: [] for depth in self.depths}
        for part in blocks(Rows(attempt.inputs["candidates"], ["query_id", "doc_ids"])):
            ranked = run.of_queries(part["query_id"].to_pylist())
            for depth, tables in lists.items():
                tables.append(rerank_to(part, ranked, depth, self.depths[-1], most))
        values = [
            evaluate(pa.concat_tables(tables), qrels, [self.measure], relevance).append_column(
                "depth", pa.array([depth] * len(set(qrels["query_id"].to_pylist())), pa.int32())
            )
            for depth, tables in lists.items()
        ]
        attempt.put_table(pa.concat_tables(values))
        return {"queries": len(values[0]), "depths": len(self.depths)}


def depth_curve(metrics: Metrics) -> DepthCurve | None:
    """The curve of a measured run by the first measure that rows are tested by; None of lists that
    no model re-ranked, of a listwise teacher, and where there is one depth only."""
    run = metrics.run_step
    candidates, depth = run.inputs().get("candidates"), getattr(run, "depth", None)
    measure = next(filter(tested, metrics.measures), None)
    if run.kind != "run" or candidates is None or depth is None or measure is None:
        return None
    depths = (*(other for other in DEPTHS if other < depth), depth)
    if len(depths) < 2 or _is_listwise(run):
        return None
    return DepthCurve(run, candidates, metrics.queries, measure, depths)


def _is_listwise(run: Step) -> bool:
    """Whether a teacher that orders whole lists made the run, alone or in an ensemble."""
    if not isinstance(run, TeacherRun):
        return False
    return "rank" in {run.teacher_kind, *_kinds(run.teacher)}


def _kinds(scores: Step) -> Iterator[str]:
    if isinstance(scores, CombinedScores):
        yield from (values for values, _ in scores.teacher.members.values())
