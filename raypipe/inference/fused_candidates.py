"""Fused candidates: one list per query from those of several sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypipe.artifacts import Artifact, Attempt, Step
from raypipe.data.collection import read_docs
from raypipe.data.sets import QUERIES_FILE, Queries
from raypipe.inference.chunks import Counts, Work, run_chunks
from raypipe.inference.fuse import FusedList, MinMax, RankedList, ReciprocalRank, ZSum, fuse
from raypipe.inference.rows import Rows
from raypipe.records import CANDIDATES
from raypipe.resources import Context

CHUNK = 4096
COLUMNS = ("query_id", "doc_ids", "scores", "ranks")


@dataclass(frozen=True)
class FusedCandidates(Step):
    """One row per query of the set, also where a member has no row for it."""

    members: tuple[tuple[str, Step], ...]
    """(name, candidates) in the order that the `sources` column has."""
    queries: Queries
    method: ReciprocalRank | MinMax | ZSum
    weights: tuple[float, ...]
    """One per member."""
    depth: int

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"fused-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        return {
            "members": [name for name, _ in self.members],
            "method": self.method.semantic(),
            "weights": list(self.weights),
            "depth": self.depth,
        }

    def inputs(self) -> Mapping[str, Step]:
        return {"queries": self.queries, **{_input(n): step for n, step in self.members}}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = len(read_docs(attempt.inputs["queries"].local() / QUERIES_FILE))
        names = tuple(name for name, _ in self.members)
        job = _Fuse(dict(attempt.inputs), names, self.method, self.weights, self.depth)
        return run_chunks(job, rows, CHUNK, attempt, context, model=False)


def _input(name: str) -> str:
    return f"member {name}"


@dataclass(frozen=True)
class _Fuse:
    inputs: dict[str, Artifact]
    names: tuple[str, ...]
    method: ReciprocalRank | MinMax | ZSum
    weights: tuple[float, ...]
    depth: int

    def build(self) -> Work:
        query_ids = read_docs(self.inputs["queries"].local() / QUERIES_FILE).ids()
        members = [Rows(self.inputs[_input(name)], COLUMNS) for name in self.names]

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            asked = query_ids.slice(chunk.start, len(chunk)).to_pylist()
            by_member = [lists_of(member, asked) for member in members]
            counts: Counter[str] = Counter({f"from_{name}": 0 for name in self.names})
            out = []
            for query_id, *lists in zip(asked, *by_member, strict=True):
                self._check(query_id, lists)
                fused = fuse(lists, self.weights, self.method, self.depth)
                out.append(self._row(query_id, fused))
                counts.update(f"from_{self.names[m]}" for have in fused.members for m in have)
            counts["candidates"] = sum(len(row["doc_ids"]) for row in out)
            counts["queries_without_candidates"] = sum(not row["doc_ids"] for row in out)
            return pa.Table.from_pylist(out, schema=CANDIDATES), dict(counts)

        return work

    def _check(self, query_id: str, lists: Sequence[RankedList]) -> None:
        for name, one in zip(self.names, lists, strict=True):
            if self.method.reads_scores and not np.isfinite(one.scores).all():
                raise ValueError(
                    f"query {query_id}: expected finite scores from {name!r}, found "
                    f"{one.scores[~np.isfinite(one.scores)][0]}; method.type=reciprocal_rank reads "
                    "ranks only"
                )

    def _row(self, query_id: str, fused: FusedList) -> dict[str, Any]:
        return {
            "query_id": query_id,
            "doc_ids": fused.doc_ids,
            "ranks": range(1, len(fused.doc_ids) + 1),
            "scores": fused.scores,
            "sources": ["+".join(self.names[m] for m in have) for have in fused.members],
        }


def lists_of(member: Rows, query_ids: Sequence[str]) -> list[RankedList]:
    """The candidates of these queries, by id; an empty list where the member has no such query."""
    found = member.of_queries(query_ids)
    empty: dict[str, Any] = {"doc_ids": [], "scores": [], "ranks": []}
    rows = (found.get(query_id, [empty])[0] for query_id in query_ids)
    return [
        RankedList(row["doc_ids"], np.array(row["scores"], float), np.array(row["ranks"], float))
        for row in rows
    ]
