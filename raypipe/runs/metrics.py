"""The metrics of a run, per query."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.datasets.steps import QRELS_FILE, Queries
from raypipe.evaluation.measures import evaluate, means, unjudged_queries
from raypipe.evaluation.own_measures import own_code
from raypipe.evaluation.ranking import constant_lists, write_trec_run
from raypipe.names import trec_token
from raypipe.storage.artifacts import Attempt, Step

TIED = "queries_with_constant_scores"
"""The counter of lists whose re-ranked documents, two or more, all have one score."""


@dataclass(frozen=True)
class Metrics(Step):
    """Every measure of every judged query, and the ranking as a TREC run file beside them.

    The file holds the run's scores, falling strictly, so that readers which order by score find
    the same values. `scores_lowered` counts those that had to be lowered for this.
    """

    run_step: Step
    """A run, or candidates: the first stage as it is."""
    queries: Queries
    measures: Sequence[str]

    kind: ClassVar[str] = "metrics"
    version: ClassVar[int] = 2  # the run file holds scores, no longer -1, -2, -3

    @property
    def name(self) -> str:
        return self.run_step.name

    def spec(self) -> Mapping[str, Any]:
        return {"measures": list(map(str, self.measures)), **own_code(self.measures)}

    def inputs(self) -> Mapping[str, Step]:
        return {"run": self.run_step, "queries": self.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        run: pa.Table = attempt.inputs["run"].table()
        qrels = pq.read_table(attempt.inputs["queries"].local() / QRELS_FILE)
        values = evaluate(run, qrels, self.measures, self.queries.queries.positive_relevance)
        attempt.put_table(values, "per_query.parquet")
        text = io.StringIO()
        depth = getattr(self.run_step, "depth", None) if self.run_step.kind == "run" else None
        _, lowered = write_trec_run(text, run, trec_token(self.name), depth=depth)
        with attempt.open("run.trec") as sink:
            sink.write(text.getvalue().encode())
        return {
            "queries": len(values) // len(self.measures),
            "queries_of_the_run_without_qrels": unjudged_queries(run, qrels),
            "scores_lowered": lowered,
            TIED: constant_lists(run, depth),
            "means": means(values),
        }
