"""Several teachers as one: their values brought to one scale per query, then averaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from raypipe.artifacts import Artifact, Attempt, Step
from raypipe.inference.chunks import Counts, Work, run_chunks
from raypipe.inference.lists import Lists
from raypipe.inference.rows import Rows
from raypipe.inference.scales import min_max, zscore
from raypipe.records import TEACHER
from raypipe.resources import Context

CHUNK = 4096
COLUMNS = ("query_id", "doc_ids", "values")
Array = np.ndarray[Any, Any]
Normalise = Literal["none", "min_max", "z"]


@dataclass(frozen=True)
class Member:
    """One teacher of an ensemble."""

    scores: Step
    kind: Literal["score", "rank"]
    weight: float


@dataclass(frozen=True)
class CombinedScores(Step):
    """Weighted mean over teachers; a document needs a value from every one of them."""

    lists: Lists
    members: Mapping[str, Member]
    normalise: Normalise

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"ensemble-{self.lists.name}"

    def spec(self) -> Mapping[str, Any]:
        how = {name: [one.kind, one.weight] for name, one in self.members.items()}
        return {"members": how, "normalise": self.normalise}

    def facts(self) -> Mapping[str, Any]:
        return {"values": "score"}

    def inputs(self) -> Mapping[str, Step]:
        members = {f"member_{name}": one.scores for name, one in self.members.items()}
        return {"candidates": self.lists.candidates, **members}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        job = _Combine(
            dict(attempt.inputs),
            {name: (one.kind, one.weight) for name, one in self.members.items()},
            self.normalise,
        )
        rows = len(Rows(attempt.inputs["candidates"]))
        return run_chunks(job, rows, CHUNK, attempt, context, model=False)


@dataclass(frozen=True)
class _Combine:
    inputs: dict[str, Artifact]
    members: Mapping[str, tuple[str, float]]
    normalise: Normalise

    def build(self) -> Work:
        candidates = Rows(self.inputs["candidates"], COLUMNS[:1])
        tables = {name: Rows(self.inputs[f"member_{name}"], COLUMNS) for name in self.members}

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            queries = candidates.read(chunk)["query_id"].to_pylist()
            said = {name: rows.of_queries(queries) for name, rows in tables.items()}
            counts: Counter[str] = Counter()
            out = []
            for query_id in queries:
                lists = {name: _values(found.get(query_id, [])) for name, found in said.items()}
                if not all(lists.values()):
                    counts["queries_without_all_teachers"] += 1
                    continue
                doc_ids, values, left = combine(lists, self.members, self.normalise)
                counts["documents_without_all_teachers"] += left
                counts["pairs"] += len(doc_ids)
                out.append({"query_id": query_id, "doc_ids": doc_ids, "values": values})
            return pa.Table.from_pylist(out, schema=TEACHER), dict(counts)

        return work


def _values(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {d: v for row in rows for d, v in zip(row["doc_ids"], row["values"], strict=True)}


def combine(
    lists: Mapping[str, Mapping[str, float]],
    members: Mapping[str, tuple[str, float]],
    normalise: Normalise,
) -> tuple[list[str], Array, int]:
    """The documents that every member values, in the first member's order, and their mean value.

    Args:
        lists: value by document id, for every member; not empty.
        members: ("score" or "rank", weight) of every member; ranks count as their negative.
        normalise: applied to each member's values of the query, over the common documents.

    Returns:
        Document ids, float64 values (higher is better), and how many documents were left out.
    """
    first = next(iter(lists.values()))
    common = [d for d in first if all(d in values for values in lists.values())]
    every = set().union(*lists.values())
    total, weights = np.zeros(len(common)), 0.0
    for name, values in lists.items():
        kind, weight = members[name]
        sign = -1.0 if kind == "rank" else 1.0
        total += weight * _scaled(sign * np.array([values[d] for d in common]), normalise)
        weights += weight
    return common, total / weights, len(every) - len(common)


def _scaled(values: Array, normalise: Normalise) -> Array:
    if normalise == "z":
        return zscore(values)
    return min_max(values) if normalise == "min_max" else values
