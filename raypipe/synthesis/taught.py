"""What a teacher makes of lists: queries whose passage it puts first, and lists in its order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypipe.records import CANDIDATES
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.parts import part_name
from raypipe.synthesis.consistency import (
    Consistency,
    TaughtLists,
    blocks,
    first_row,
    passages_of,
    read_queries,
    tally,
    write_kept,
)
from raypipe.synthesis.generated import type_of_query
from raypipe.synthesis.known_items import SyntheticQueries
from raypipe.tables.rows import Rows
from raypipe.teachers.values import TeacherValues, check_finite

SCALES_FILE = "scales.json"
"""By type of query the values that become 0 and 1."""
LOW, HIGH = 1, 99
"""Percentiles of the pool that become 0 and 1."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ListsOfQueries(Step):
    """The candidates of some of the queries that have any, in the order of the queries."""

    candidates: Step
    queries: SyntheticQueries

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return self.queries.name

    def inputs(self) -> Mapping[str, Step]:
        return {"candidates": self.candidates, "queries": self.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        lists = Rows(attempt.inputs["candidates"])
        counts: Counter[str] = Counter()
        for number, ids in enumerate(blocks(read_queries(attempt.inputs["queries"]))):
            found = lists.of_queries(ids)
            rows = [{**first_row(found, query_id), "query_id": query_id} for query_id in ids]
            attempt.put_table(pa.Table.from_pylist(rows, schema=CANDIDATES), part_name(number))
            counts["rows"] += len(rows)
            counts["candidates"] += sum(len(row["doc_ids"]) for row in rows)
        return counts


@dataclass(frozen=True)
class TaughtQueries(SyntheticQueries):
    """The queries whose passage is the teacher's first, and scores high enough among all."""

    retrieved: SyntheticQueries = field(kw_only=True)
    lists: Step = field(kw_only=True)
    """The list of each query that the teacher has scored."""
    scores: Step = field(kw_only=True)
    rules: Consistency = field(kw_only=True)

    filtered_by: ClassVar[str] = "the teacher"

    @property
    def name(self) -> str:
        return f"taught-{self.retrieved.name}"[:90]

    def spec(self) -> Mapping[str, Any]:
        rules = {"pool": self.rules.pool, "percentile": self.rules.percentile}
        return {**rules, "limit": self.queries.limit, "skip": self.queries.skip}

    def inputs(self) -> Mapping[str, Step]:
        return {"retrieved": self.retrieved, "lists": self.lists, "scores": self.scores}

    def chain(self) -> tuple[SyntheticQueries, ...]:
        """This set and those that it was chosen from, the first one that was written first."""
        return (*self.retrieved.chain(), self)

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        check_finite(attempt.inputs["scores"])
        queries = read_queries(attempt.inputs["retrieved"])
        passage_of = passages_of(queries)
        lists, teacher = Rows(attempt.inputs["lists"]), TeacherValues(attempt.inputs["scores"])
        values_of: dict[str, Array] = {}
        reasons: dict[str, str | None] = {}
        for ids in blocks(queries):
            found, values = lists.of_queries(ids), teacher.of_queries(ids)
            for query_id in ids:
                doc_ids, known = known_values(
                    first_row(found, query_id)["doc_ids"], values.get(query_id, {})
                )
                reasons[query_id] = _reason(passage_of[query_id], doc_ids, known)
                if reasons[query_id] is None:
                    values_of[query_id] = known
        scales = self._scales(values_of)
        for query_id, known in values_of.items():
            if known.max() < scales[type_of_query(query_id)][2]:
                reasons[query_id] = "below_percentile"
        counts: Counter[str] = Counter()
        for query_id, reason in reasons.items():
            tally(counts, query_id, reason)
        kept = {query_id for query_id, reason in reasons.items() if reason is None}
        with attempt.open(SCALES_FILE) as sink:
            ends = {kind: [low, high] for kind, (low, high, _) in scales.items()}
            sink.write(json.dumps(ends, sort_keys=True).encode())
        return write_kept(queries, kept, self, attempt, counts)

    def _scales(self, values_of: Mapping[str, Array]) -> dict[str, tuple[float, float, float]]:
        """By type: percentiles 1 and 99 of the pool, and the least that a list's top may score."""
        pools: dict[str, list[Array]] = {}
        for query_id, values in values_of.items():
            pooled = values if self.rules.pool == "all" else values.max(keepdims=True)
            pools.setdefault(type_of_query(query_id), []).append(pooled)
        asked = [LOW, HIGH, self.rules.percentile]
        found = {kind: np.percentile(np.concatenate(pool), asked) for kind, pool in pools.items()}
        return {kind: (float(a), float(b), float(c)) for kind, (a, b, c) in found.items()}


def _reason(passage: str, doc_ids: Sequence[str], values: Array) -> str | None:
    """Why the teacher drops a query; equal values keep the order of the list."""
    if passage not in doc_ids:
        return "without_teacher_value"
    return None if doc_ids[int(values.argmax())] == passage else "not_first_by_teacher"


def known_values(
    doc_ids: Sequence[str], by_doc: Mapping[str, float]
) -> tuple[list[str], np.ndarray[Any, Any]]:
    """The documents of a list that have a finite value, in its order, and the values."""
    values = np.array([by_doc.get(doc_id, np.nan) for doc_id in doc_ids], np.float64)
    finite = np.isfinite(values)
    return [doc_id for doc_id, has in zip(doc_ids, finite, strict=True) if has], values[finite]


@dataclass(frozen=True)
class Reordered(Step):
    """Lists in a teacher's order, with its values, or their place on a scale, as scores.

    Documents without a value leave. Of equal values the earlier document stays first.
    """

    lists: Step
    scores: Step
    queries: SyntheticQueries
    chosen: TaughtLists

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"reordered-{self.queries.name}"[:90]

    def spec(self) -> Mapping[str, Any]:
        return self.chosen.semantic()

    def inputs(self) -> Mapping[str, Step]:
        return {"lists": self.lists, "scores": self.scores, "queries": self.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        lists, teacher = Rows(attempt.inputs["lists"]), TeacherValues(attempt.inputs["scores"])
        scales = json.loads((attempt.inputs["queries"].local() / SCALES_FILE).read_text())
        counts: Counter[str] = Counter()
        for number, ids in enumerate(blocks(read_queries(attempt.inputs["queries"]))):
            found, values = lists.of_queries(ids), teacher.of_queries(ids)
            rows = []
            for query_id in ids:
                listed, by_doc = first_row(found, query_id), values.get(query_id, {})
                row = reordered(listed, by_doc, self.chosen, scales[type_of_query(query_id)])
                counts["documents_without_teacher_value"] += sum(
                    not np.isfinite(by_doc.get(doc_id, np.nan)) for doc_id in listed["doc_ids"]
                )
                rows.append({**row, "query_id": query_id})
            attempt.put_table(pa.Table.from_pylist(rows, schema=CANDIDATES), part_name(number))
            counts["rows"] += len(rows)
            counts["candidates"] += sum(len(row["doc_ids"]) for row in rows)
        return counts


def reordered(
    row: Mapping[str, Any],
    by_doc: Mapping[str, float],
    chosen: TaughtLists,
    scale: tuple[float, float],
) -> dict[str, Any]:
    """A list in the order of values, cut to `chosen.count`.

    Args:
        row: of CANDIDATES.
        by_doc: the teacher's values, higher is better.
        scale: the values that become 0 and 1; what lies outside becomes the nearer one.
    """
    doc_ids, values = known_values(row["doc_ids"], by_doc)
    source_of = dict(zip(row["doc_ids"], row["sources"], strict=True))
    order = np.argsort(-values, kind="stable")
    if chosen.choice == "stratified":
        order = order[strata(values[order], chosen.count)]
    order = order[: chosen.count]
    names = [doc_ids[i] for i in order]
    return {
        "doc_ids": names,
        "ranks": range(1, len(names) + 1),
        "scores": on_scale(values[order], *scale).astype(np.float32),
        "sources": [source_of[doc_id] for doc_id in names],
    }


def on_scale(values: Array, low: float, high: float) -> Array:
    """The values between `low` and `high` on [0, 1]; all 0 where the two are equal."""
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)


def strata(values: Array, count: int) -> Array:
    """Positions of `count` values at equal steps from the first to the last, ascending.

    For each level from the highest down the nearest value that was not taken; of two equally near
    ones the higher. Values 9, 8, 7, 2, 1 and 3: levels 9, 5, 1, positions 0, 2, 4.

    Args:
        values: descending.
    """
    if count >= len(values):
        return np.arange(len(values))
    free = np.ones(len(values), bool)
    for level in np.linspace(values[0], values[-1], count):
        free[np.where(free, np.abs(values - level), np.inf).argmin()] = False
    return np.flatnonzero(~free)
