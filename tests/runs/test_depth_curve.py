"""A run at smaller depths is the run that re-ranks so many candidates; what has no such curve."""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import SimpleNamespace

import pyarrow as pa
import pytest
from given_runs import candidates, model_run, queries

from raypipe.evaluation.measures import evaluate
from raypipe.evaluation.ranking import rerank
from raypipe.records import CANDIDATES, QRELS
from raypipe.runs.baselines import TeacherRun
from raypipe.runs.depth_curve import DepthCurve, depth_curve
from raypipe.runs.metrics import Metrics
from raypipe.storage.artifacts import Step, Store
from raypipe.storage.builder import Builder
from raypipe.teachers.ensemble import CombinedScores

QUERIES = [f"q{i}" for i in range(6)]


def lists() -> dict[str, dict[str, float]]:
    """Thirty candidates each, one list shorter than the smallest depth, one empty."""
    sizes = dict(zip(QUERIES, (30, 30, 30, 30, 7, 0), strict=True))
    return {q: {f"d{i}": 100.0 - i for i in range(size)} for q, size in sizes.items()}


def scores() -> dict[str, list[float]]:
    """Whole numbers, so that many scores are equal."""
    draw = random.Random(5)
    return {q: [float(draw.randrange(6)) for _ in docs][:25] for q, docs in lists().items()}


@pytest.mark.parametrize("measure", ["nDCG@10", "RR@10", "AP"])
def test_a_depth_is_the_run_of_that_depth(tmp_path, measure):
    judged = queries(q0="d22", q1="d3", q2="d12", q3="d29", q4="d6", q5="d1")
    run = model_run(lists(), scores(), 25, judged)
    builder = Builder(Store(str(tmp_path)))
    curve = DepthCurve(run, run.candidates, judged, measure, (10, 20, 25))
    found: dict[int, dict[str, float]] = {}
    for row in builder.get(curve).table().to_pylist():
        found.setdefault(row["depth"], {})[row["query_id"]] = row["value"]

    table = builder.get(candidates(lists())).table()
    qrels = pa.Table.from_pylist(
        [
            {"query_id": q, "doc_id": d, "relevance": 1}
            for q, d in zip(QUERIES, ("d22", "d3", "d12", "d29", "d6", "d1"), strict=True)
        ],
        schema=QRELS,
    )
    assert table.schema.names == CANDIDATES.names
    for depth in (10, 20, 25):
        heads = {q: s[:depth] for q, s in scores().items()}
        values = evaluate(rerank(table, heads, depth), qrels, [measure]).to_pylist()
        assert found[depth] == {row["query_id"]: row["value"] for row in values}
    assert found[10] != found[20] != found[25]


@dataclass(frozen=True)
class Scores(Step):
    """Values that nobody reads here."""

    kind = "teacher"
    name = "scores"


def measured(run: Step, *measures: str) -> Metrics:
    return Metrics(run, queries(q="a"), measures or ("Judged@10", "nDCG@10"))  # type: ignore[arg-type]


def run_of(depth: int) -> Step:
    return model_run({"q": {}}, {"q": []}, depth)


def test_depths_end_at_that_of_the_scoring():
    def depths(depth: int) -> tuple[int, ...]:
        curve = depth_curve(measured(run_of(depth)))
        assert curve is not None and curve.measure == "nDCG@10"
        return curve.depths

    assert depths(15) == (10, 15)
    assert depths(50) == (10, 20, 50)
    assert depths(200) == (10, 20, 50, 100, 200)
    assert depths(1000) == (10, 20, 50, 100, 200, 1000)


def test_one_depth_and_a_first_stage_are_no_curve():
    assert depth_curve(measured(run_of(10))) is None
    assert depth_curve(measured(candidates({"q": {}}))) is None
    assert depth_curve(measured(run_of(50), "Judged@10")) is None


def test_listwise_teachers_are_left_out():
    lists, judged = candidates({"q": {}}), queries(q="a")

    def curve(teacher: Step, kind: str) -> DepthCurve | None:
        return depth_curve(measured(TeacherRun(teacher, kind, lists, judged, 50)))  # type: ignore[arg-type]

    assert curve(Scores(), "score") is not None
    assert curve(Scores(), "rank") is None
    for kind, has_curve in (("score", True), ("rank", False)):
        ensemble = SimpleNamespace(members={"a": ("score", 1.0), "b": (kind, 1.0)}, normalise="z")
        combined = CombinedScores(ensemble, SimpleNamespace(candidates=lists, name="x"), {})  # type: ignore[arg-type]
        assert (curve(combined, "score") is not None) == has_curve
