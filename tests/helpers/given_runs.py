"""Runs, candidates and judgements as steps whose artifacts hold what a test writes down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import pyarrow as pa

from raypipe.evaluation.ranking import rerank
from raypipe.records import CANDIDATES, QRELS, RUN, TEACHER
from raypipe.storage.artifacts import Step


@dataclass(frozen=True)
class Given(Step):
    """Rows as an artifact of any kind."""

    kind: str  # type: ignore[misc]
    rows: str
    schema: ClassVar[Mapping[str, pa.Schema]] = {
        "candidates": CANDIDATES,
        "run": RUN,
        "teacher": TEACHER,
    }

    @property
    def name(self) -> str:
        return "given"

    def spec(self) -> Mapping[str, Any]:
        return {"rows": self.rows}

    def run(self, attempt, context):
        rows = json.loads(self.rows)
        if self.kind == "queries":
            attempt.put_table(pa.Table.from_pylist(rows, schema=QRELS), "qrels.parquet")
        else:
            attempt.put_table(pa.Table.from_pylist(rows, schema=self.schema[self.kind]))
        return {}


@dataclass(frozen=True)
class GivenQueries(Given):
    """Judgements only."""

    @property
    def queries(self) -> SimpleNamespace:
        return SimpleNamespace(positive_relevance=1)


@dataclass(frozen=True)
class GivenRun(Given):
    """What a cross-encoder said of the first `depth` candidates."""

    candidates: Given
    depth: int
    queries: GivenQueries

    @property
    def lists(self) -> SimpleNamespace:
        return SimpleNamespace(candidates=self.candidates, queries=self.queries)

    def spec(self) -> Mapping[str, Any]:
        return {"rows": self.rows, "depth": self.depth}

    def inputs(self) -> Mapping[str, Step]:
        return {"candidates": self.candidates}


Lists = dict[str, dict[str, float]]


def queries(**relevant: str) -> GivenQueries:
    """The relevant document of every query."""
    rows = [{"query_id": q, "doc_id": d, "relevance": 1} for q, d in relevant.items()]
    return GivenQueries("queries", json.dumps(rows))


def candidates(lists: Lists) -> Given:
    """Per query the scores of its candidates, best first."""
    rows = [
        {
            "query_id": q,
            "doc_ids": list(one),
            "ranks": list(range(1, len(one) + 1)),
            "scores": list(one.values()),
            "sources": ["bm25"] * len(one),
        }
        for q, one in lists.items()
    ]
    return Given("candidates", json.dumps(rows))


def model_run(
    first: Lists, scores: dict[str, list[float]], depth: int, judged: GivenQueries | None = None
) -> GivenRun:
    """The run of a model with these scores of the first candidates, in candidate order."""
    step = candidates(first)
    table = pa.Table.from_pylist(json.loads(step.rows), schema=CANDIDATES)
    rows = rerank(table, scores, depth).to_pylist()
    return GivenRun("run", json.dumps(rows), step, depth, judged or queries(q="a"))
