"""Runs combined from other runs without a forward pass: of several seeds, or with the first stage.

A model has scored the head of a run, the first `depth` candidates. Scores of different origin are
added as z-scores over this head, query by query.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.datasets.steps import QRELS_FILE
from raypipe.evaluation.measures import evaluate, means
from raypipe.evaluation.own_measures import own_code
from raypipe.evaluation.ranking import rerank
from raypipe.runs.rerank import CrossEncoderRun, Reranking
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.rows import Rows
from raypipe.tables.scales import zscore
from raypipe.teachers.values import TeacherValues

BLOCK = 1024
"""Queries whose lists are Python objects at a time."""
GRID = tuple(i / 10 for i in range(11))
"""Weights to choose from."""
Array = np.ndarray[Any, Any]


# --- ensembles -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SeedEnsembleRun(Step):
    """The mean over several runs of the z-scores that each gives the same candidates."""

    runs: tuple[CrossEncoderRun, ...]
    """At least two, of the same candidates to the same depth; their order does not matter."""

    kind: ClassVar[str] = "run"
    version: ClassVar[int] = 2  # equal scores keep the first stage's order, no longer that of ids

    def __post_init__(self) -> None:
        different = len({run.digest for run in self.runs})
        if different < max(len(self.runs), 2):
            raise ValueError(
                f"expected at least two different runs, found {len(self.runs)} of which "
                f"{different} differ; train more seeds"
            )
        heads = {(run.lists.candidates.digest, run.depth) for run in self.runs}
        if len(heads) > 1:
            raise ValueError(
                "expected runs of the same candidates to the same depth, found "
                f"{len(heads)} different ones at depths {sorted({depth for _, depth in heads})}; "
                "re-rank the same candidates to the same depth with every model"
            )

    @property
    def name(self) -> str:
        return f"ensemble-of-{len(self.runs)}-{self.lists.queries.name}"

    @property
    def lists(self) -> Reranking:
        """The lists that every run re-ranked."""
        return self.runs[0].lists

    @property
    def depth(self) -> int:
        """The number of candidates that every run re-ranked."""
        return self.runs[0].depth

    def spec(self) -> Mapping[str, Any]:
        return {"depth": self.depth}

    def inputs(self) -> Mapping[str, Step]:
        ordered = sorted(self.runs, key=lambda run: run.digest)
        runs = {f"run_{number}": run for number, run in enumerate(ordered)}
        return {"candidates": self.lists.candidates, **runs}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        runs = [Rows(attempt.inputs[f"run_{number}"]) for number in range(len(self.runs))]
        tables, constant = [], 0
        for part in blocks(Rows(attempt.inputs["candidates"])):
            by_run = [heads(rows, part, self.depth) for rows in runs]
            constant += sum(_is_constant(head) for by_query in by_run for head in by_query.values())
            scores = {q: mean_of_z([by_query[q] for by_query in by_run]) for q in by_run[0]}
            tables.append(rerank(part, scores, self.depth))
        run = pa.concat_tables(tables)
        attempt.put_table(run)
        return {"rows": run.num_rows, "runs": len(runs), "constant_lists": constant}


def mean_of_z(scores: Sequence[Array]) -> Array:
    """[D] the mean of several models' z-scores of one list; the models' order does not matter.

    The z-scores of 3, 2, 1 and 10, 10, 40 are sqrt(3/2), 0, -sqrt(3/2) and -sqrt(1/2), -sqrt(1/2),
    sqrt(2). Those of a model that gives all documents one score are zeros.
    """
    z_RD = np.stack([zscore(scores_D) for scores_D in scores])
    # sorted, because (a + b) + c is not a + (b + c)
    mean: Array = np.sort(z_RD, axis=0).sum(axis=0) / len(scores)
    return mean


def heads(run: Rows, candidates: pa.Table, depth: int) -> dict[str, Array]:
    """Per query the run's float64 scores of the first `depth` candidates, in their order.

    Raises:
        ValueError: a query is not in the run, or the run's head has other documents.
    """
    rows = candidates.select(["query_id", "doc_ids"]).to_pylist()
    rows_by_query = run.of_queries(row["query_id"] for row in rows)
    scores = {}
    for row in rows:
        query_id, head = row["query_id"], row["doc_ids"][:depth]
        if query_id not in rows_by_query:
            raise ValueError(
                f"query {query_id!r}: expected a row in every run, found none in one; re-rank the "
                "same candidates with every model"
            )
        (ranked,) = rows_by_query[query_id]
        known = dict(zip(ranked["doc_ids"][:depth], ranked["scores"][:depth], strict=True))
        if known.keys() != set(head):
            raise ValueError(
                f"query {query_id!r}: expected scores of its first {len(head)} candidates, found "
                f"{len(known.keys() - set(head))} other documents; re-rank the same candidates to "
                "the same depth with every model"
            )
        scores[query_id] = np.array([known[doc_id] for doc_id in head], dtype=np.float64)
    return scores


def _is_constant(head: Array) -> bool:
    return len(head) > 1 and float(np.ptp(head)) == 0.0


def blocks(rows: Rows) -> Iterator[pa.Table]:
    """All rows in order, at most `BLOCK` at a time."""
    for start in range(0, len(rows), BLOCK):
        yield rows.read(range(start, min(start + BLOCK, len(rows))))


# --- interpolation with the first stage, or with its fusion --------------------------------------


@dataclass(frozen=True)
class BestInterpolation(Step):
    """The model's weight beside the first stage or its fusion, chosen on validation queries.

    The weight with the highest mean of the measure is taken; of equally good weights the largest,
    so that the first stage counts only where it helps.
    """

    run_step: CrossEncoderRun | SeedEnsembleRun
    """The model's run over validation queries."""
    measure: str
    """The measure that decides; higher is better."""
    grid: tuple[float, ...] = GRID
    """Weights of the model to choose from, in [0, 1]."""
    fusion: Step | None = None
    """Values of the validation queries' candidates to the same depth, which take the place of the
    first stage's scores."""

    kind: ClassVar[str] = "interpolation"
    version: ClassVar[int] = 2  # equal scores keep the first stage's order, no longer that of ids

    def __post_init__(self) -> None:
        if not self.grid or not all(0 <= weight <= 1 for weight in self.grid):
            raise ValueError(
                f"grid: expected weights in [0, 1], found {list(self.grid)}; leave the others out"
            )

    @property
    def name(self) -> str:
        return self.run_step.name

    def spec(self) -> Mapping[str, Any]:
        depth = self.run_step.depth
        plain = {"measure": str(self.measure), "grid": list(self.grid), "depth": depth}
        return plain | own_code([self.measure])

    def inputs(self) -> Mapping[str, Step]:
        lists = self.run_step.lists
        inputs = {"run": self.run_step, "candidates": lists.candidates, "queries": lists.queries}
        return inputs | _other(self.fusion)

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        candidates: pa.Table = attempt.inputs["candidates"].table()
        qrels = pq.read_table(attempt.inputs["queries"].local() / QRELS_FILE)
        relevance = self.run_step.lists.queries.queries.positive_relevance
        sides = _Sides(attempt.inputs, self.run_step.depth)
        model, first = sides.model(candidates), sides.first(candidates)
        values = []
        for weight in self.grid:
            scores = {q: interpolate(model[q], first[q], weight) for q in model}
            run = rerank(candidates, scores, self.run_step.depth)
            per_query = evaluate(run, qrels, [self.measure], relevance)
            values.append(means(per_query)[self.measure])
        attempt.put_table(pa.table({"weight": self.grid, "value": values}), "weights.parquet")
        value, weight = max(zip(values, self.grid, strict=True))
        return {"weight": weight, "value": value, "queries": len(per_query)}


@dataclass(frozen=True)
class InterpolatedRun(Step):
    """weight * z(model) + (1 - weight) * z(first stage, or its fusion) of what was re-ranked."""

    run_step: CrossEncoderRun | SeedEnsembleRun
    """The model's run over test queries."""
    weight: BestInterpolation
    """The weight chosen for the same model at the same depth, beside the same scores."""
    fusion: Step | None = None
    """As of the weight, for the test queries."""

    kind: ClassVar[str] = "run"
    version: ClassVar[int] = 2  # equal scores keep the first stage's order, no longer that of ids

    def __post_init__(self) -> None:
        depth, chosen_at = self.run_step.depth, self.weight.run_step.depth
        assert (self.fusion is None) == (self.weight.fusion is None), "one kind of sum"
        if depth != chosen_at:
            raise ValueError(
                f"expected a weight chosen at depth {depth}, found one at {chosen_at}: z-scores "
                "depend on the depth; re-rank the validation queries as deep as the test queries"
            )

    @property
    def name(self) -> str:
        return f"interpolated-{self.run_step.name}"

    @property
    def depth(self) -> int:
        """The number of candidates that the model re-ranked."""
        return self.run_step.depth

    def spec(self) -> Mapping[str, Any]:
        return {"depth": self.run_step.depth}

    def inputs(self) -> Mapping[str, Step]:
        candidates = self.run_step.lists.candidates
        inputs = {"run": self.run_step, "candidates": candidates, "weight": self.weight}
        return inputs | _other(self.fusion)

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        weight = float(attempt.inputs["weight"].counts["weight"])
        sides, depth = _Sides(attempt.inputs, self.run_step.depth), self.run_step.depth
        tables, unordered = [], 0
        for part in blocks(Rows(attempt.inputs["candidates"])):
            model, first = sides.model(part), sides.first(part)
            if self.fusion is None:
                unordered += sum(bool((np.diff(head) > 0).any()) for head in first.values())
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


def _other(fusion: Step | None) -> dict[str, Step]:
    return {} if fusion is None else {"fusion": fusion}


class _Sides:
    """Both sides of a sum by query: float64 scores of the first `depth` candidates, in order."""

    def __init__(self, inputs: Mapping[str, Artifact], depth: int) -> None:
        self.run, self.depth = Rows(inputs["run"]), depth
        self.fusion = TeacherValues(inputs["fusion"]) if "fusion" in inputs else None

    def model(self, candidates: pa.Table) -> dict[str, Array]:
        """Scores of the model."""
        return heads(self.run, candidates, self.depth)

    def first(self, candidates: pa.Table) -> dict[str, Array]:
        """Scores of the first stage, or of its fusion."""
        rows = candidates.select(["query_id", "doc_ids", "scores"]).to_pylist()
        fused = {} if self.fusion is None else self.fusion.of_queries(r["query_id"] for r in rows)
        first = {}
        for row in rows:
            query_id, scores = row["query_id"], row["scores"][: self.depth]
            if self.fusion is not None:
                scores = [fused[query_id][doc_id] for doc_id in row["doc_ids"][: self.depth]]
            first[query_id] = np.array(scores, dtype=np.float64)
            if not np.isfinite(first[query_id]).all():
                raise ValueError(
                    f"query {query_id!r}: expected finite first-stage scores, found others; leave "
                    "out the interpolation, or take candidates that have scores"
                )
        return first
