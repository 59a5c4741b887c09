"""A model's scores mixed with those of the first stage; validation queries choose the weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.artifacts import Attempt, Step
from raypipe.data.sets import QRELS_FILE
from raypipe.evaluation.measures import evaluate, means
from raypipe.evaluation.ranking import rerank
from raypipe.inference.ensembles import SeedEnsembleRun, blocks, heads
from raypipe.inference.rows import Rows
from raypipe.inference.scales import zscore
from raypipe.inference.score import CrossEncoderRun

GRID = tuple(i / 10 for i in range(11))
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class BestInterpolation(Step):
    """How much a model counts beside the first stage, chosen on validation queries.

    The measure's mean is computed for every weight of the grid. Of equally good weights the one
    nearest to 1 is taken: the model alone, unless the first stage is seen to help.
    """

    run_step: CrossEncoderRun | SeedEnsembleRun
    """Of validation queries."""
    measure: str
    """On which the weight is chosen; higher is better."""
    grid: tuple[float, ...] = GRID
    """Weights of the model in [0, 1]."""

    kind: ClassVar[str] = "interpolation"

    def __post_init__(self) -> None:
        if not self.grid or not all(0 <= weight <= 1 for weight in self.grid):
            raise ValueError(f"grid: expected weights in [0, 1], found {list(self.grid)}")

    @property
    def name(self) -> str:
        return self.run_step.name

    def spec(self) -> Mapping[str, Any]:
        depth = self.run_step.depth
        return {"measure": self.measure, "grid": list(self.grid), "depth": depth}

    def inputs(self) -> Mapping[str, Step]:
        lists = self.run_step.lists
        return {"run": self.run_step, "candidates": lists.candidates, "queries": lists.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        candidates: pa.Table = attempt.inputs["candidates"].table()
        qrels = pq.read_table(attempt.inputs["queries"].local() / QRELS_FILE)
        relevance = self.run_step.lists.queries.queries.positive_relevance
        model, first = _pair(Rows(attempt.inputs["run"]), candidates, self.run_step.depth)
        values = []
        for weight in self.grid:
            scores = {q: interpolate(model[q], first[q], weight) for q in model}
            run = rerank(candidates, scores, self.run_step.depth)
            found = evaluate(run, qrels, [self.measure], relevance)
            values.append(means(found)[self.measure])
        attempt.put_table(pa.table({"weight": self.grid, "value": values}), "weights.parquet")
        value, weight = max(zip(values, self.grid, strict=True))
        return {"weight": weight, "value": value, "queries": len(found)}


@dataclass(frozen=True)
class InterpolatedRun(Step):
    """weight * z(model) + (1 - weight) * z(first stage) over the re-ranked candidates."""

    run_step: CrossEncoderRun | SeedEnsembleRun
    """Of test queries."""
    weight: BestInterpolation
    """Chosen with the same model at the same depth."""

    kind: ClassVar[str] = "run"

    def __post_init__(self) -> None:
        here, there = self.run_step.depth, self.weight.run_step.depth
        if here != there:
            raise ValueError(
                f"expected a weight chosen at depth {here}, found one at {there}: z-scores depend "
                "on the depth; re-rank the validation queries as deep as the test queries"
            )

    @property
    def name(self) -> str:
        return f"interpolated-{self.run_step.name}"

    def spec(self) -> Mapping[str, Any]:
        return {"depth": self.run_step.depth}

    def inputs(self) -> Mapping[str, Step]:
        candidates = self.run_step.lists.candidates
        return {"run": self.run_step, "candidates": candidates, "weight": self.weight}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        weight = float(attempt.inputs["weight"].counts["weight"])
        rows, depth = Rows(attempt.inputs["run"]), self.run_step.depth
        tables, unordered = [], 0
        for part in blocks(Rows(attempt.inputs["candidates"])):
            model, first = _pair(rows, part, depth)
            unordered += sum(bool((np.diff(one) > 0).any()) for one in first.values())
            scores = {q: interpolate(model[q], first[q], weight) for q in model}
            tables.append(rerank(part, scores, depth))
        run = pa.concat_tables(tables)
        attempt.put_table(run)
        return {
            "rows": run.num_rows,
            "weight": weight,
            "queries_with_scores_against_ranks": unordered,
        }


def interpolate(model: Array, first: Array, weight: float) -> Array:
    """[D] weight * z(model) + (1 - weight) * z(first)."""
    return weight * zscore(model) + (1 - weight) * zscore(first)


def _pair(run: Rows, candidates: pa.Table, depth: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Scores of the model and of the first stage by query, both in candidate order."""
    first = {}
    for row in candidates.select(["query_id", "scores"]).to_pylist():
        first[row["query_id"]] = np.array(row["scores"][:depth], dtype=np.float64)
        if not np.isfinite(first[row["query_id"]]).all():
            raise ValueError(
                f"query {row['query_id']!r}: expected finite first-stage scores, found others; "
                "leave out the interpolation, or take candidates that have scores"
            )
    return heads(run, candidates, depth), first
