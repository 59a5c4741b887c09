"""Several runs as one, without a forward pass: the mean of what seeds say of the same candidates.

Model scores stand at the head of a run, on the first `depth` candidates; scores of different models
meet as z-scores over this head, query by query.
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
from raypipe.evaluation.ranking import rerank
from raypipe.runs.rerank import CrossEncoderRun, Reranking
from raypipe.storage.artifacts import Attempt, Step
from raypipe.tables.rows import Rows
from raypipe.tables.scales import zscore

BLOCK = 1024
"""Queries whose lists are Python objects at a time."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SeedEnsembleRun(Step):
    """The mean over several runs of the z-scores that each gives the same candidates."""

    runs: tuple[CrossEncoderRun, ...]
    """At least two, of the same candidates to the same depth; their order does not matter."""

    kind: ClassVar[str] = "run"

    def __post_init__(self) -> None:
        different = len({one.digest for one in self.runs})
        if different < max(len(self.runs), 2):
            raise ValueError(
                f"expected at least two different runs, found {len(self.runs)} of which "
                f"{different} differ; train more seeds"
            )
        read = {(one.lists.candidates.digest, one.depth) for one in self.runs}
        if len(read) > 1:
            raise ValueError(
                "expected runs of the same candidates to the same depth, found "
                f"{len(read)} different ones at depths {sorted({d for _, d in read})}"
            )

    @property
    def name(self) -> str:
        return f"ensemble-of-{len(self.runs)}-{self.lists.queries.name}"

    @property
    def lists(self) -> Reranking:
        """Whose candidates were re-ranked."""
        return self.runs[0].lists

    @property
    def depth(self) -> int:
        """How many of them."""
        return self.runs[0].depth

    def spec(self) -> Mapping[str, Any]:
        return {"depth": self.depth}

    def inputs(self) -> Mapping[str, Step]:
        ordered = sorted(self.runs, key=lambda one: one.digest)
        runs = {f"run_{number}": one for number, one in enumerate(ordered)}
        return {"candidates": self.lists.candidates, **runs}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        runs = [Rows(attempt.inputs[f"run_{number}"]) for number in range(len(self.runs))]
        tables, constant = [], 0
        for part in blocks(Rows(attempt.inputs["candidates"])):
            scored = [heads(rows, part, self.depth) for rows in runs]
            constant += sum(_is_constant(head) for one in scored for head in one.values())
            scores = {q: mean_of_z([one[q] for one in scored]) for q in scored[0]}
            tables.append(rerank(part, scores, self.depth))
        run = pa.concat_tables(tables)
        attempt.put_table(run)
        return {"rows": run.num_rows, "runs": len(runs), "constant_lists": constant}


def mean_of_z(scores: Sequence[Array]) -> Array:
    """[D] the mean of several models' z-scores of one list; the models' order does not matter.

    Scores 3, 2, 1 and 10, 10, 40 are z-scores sqrt(3/2), 0, -sqrt(3/2) and -sqrt(1/2), -sqrt(1/2),
    sqrt(2). A model that gives all documents one score says nothing: zeros.
    """
    z_RD = np.stack([zscore(one) for one in scores])
    # sorted, because (a + b) + c is not a + (b + c)
    mean: Array = np.sort(z_RD, axis=0).sum(axis=0) / len(scores)
    return mean


def heads(run: Rows, candidates: pa.Table, depth: int) -> dict[str, Array]:
    """Per query the run's float64 scores of the first `depth` candidates, in their order.

    Raises:
        ValueError: a query is not in the run, or the run's head has other documents.
    """
    rows = candidates.select(["query_id", "doc_ids"]).to_pylist()
    found = run.of_queries(row["query_id"] for row in rows)
    scores = {}
    for row in rows:
        query_id, head = row["query_id"], row["doc_ids"][:depth]
        if query_id not in found:
            raise ValueError(
                f"query {query_id!r}: expected a row in every run, found none in one; re-rank the "
                "same candidates with every model"
            )
        (ranked,) = found[query_id]
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


GRID = tuple(i / 10 for i in range(11))


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
