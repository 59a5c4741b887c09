"""Several candidate sources as one."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from raypipe.candidates.bm25.source import Bm25
from raypipe.candidates.dense.source import Dense
from raypipe.candidates.rankgpt import RankGptLists
from raypipe.candidates.scored_docs import ScoredDocs
from raypipe.candidates.trec_run import TrecRun
from raypipe.candidates.without_self import WithoutSelf
from raypipe.config import Config, ConfigError, nearest
from raypipe.datasets.steps import QUERIES_FILE, Collection, Queries
from raypipe.records import CANDIDATES
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.rows import Rows
from raypipe.tables.scales import min_max, zscore
from raypipe.tables.text_table import TextTable

Array = np.ndarray[Any, Any]


class _Method(Config):
    """What a document gains from its place in one list."""

    reads_scores: ClassVar[bool] = True

    @abstractmethod
    def values(self, scores: Array, ranks: Array) -> tuple[Array, float]:
        """Of the documents of a list that is not empty, and of a document that is not in it."""


class ReciprocalRank(_Method):
    """1 / (k + rank), 0 for what is absent (Cormack, Clarke and Buettcher 2009).

    Rank 1 of one list and rank 3 of another with k = 60: 1/61 + 1/63 = 0.03227.
    """

    type: Literal["reciprocal_rank"] = "reciprocal_rank"
    k: float = Field(60, ge=0, allow_inf_nan=False)
    """How flat the top is; the paper's 60."""

    reads_scores: ClassVar[bool] = False

    def values(self, scores: Array, ranks: Array) -> tuple[Array, float]:
        return 1 / (self.k + ranks), 0.0


class MinMax(_Method):
    """(score - lowest) / (highest - lowest), 0 for what is absent (Fox and Shaw 1994, CombSUM).

    Scores 9, 5, 1 become 1, 0.5, 0. A list of equal scores says nothing: zeros.
    """

    type: Literal["min_max"] = "min_max"

    def values(self, scores: Array, ranks: Array) -> tuple[Array, float]:
        return min_max(scores), 0.0


class ZSum(_Method):
    """(score - mean) / deviation over the list; what is absent counts as the list's lowest.

    Scores 5, 4, 2, 1: mean 3, variance 2.5. A list of equal scores says nothing: zeros.
    """

    type: Literal["z_sum"] = "z_sum"

    def values(self, scores: Array, ranks: Array) -> tuple[Array, float]:
        found = zscore(scores)
        return found, float(found.min())


Method = Annotated[ReciprocalRank | MinMax | ZSum, Field(discriminator="type")]


@dataclass(frozen=True)
class RankedList:
    """What one member retrieved for one query."""

    doc_ids: Sequence[str]
    scores: Array
    """float64, higher is better."""
    ranks: Array
    """From 1; the order, also where scores say otherwise."""


@dataclass(frozen=True)
class FusedList:
    """The union of the lists, best first."""

    doc_ids: list[str]
    scores: list[float]
    """Representable in float32."""
    members: list[tuple[int, ...]]
    """Per document the positions of the lists that have it."""


def fuse(
    lists: Sequence[RankedList], weights: Sequence[float], method: _Method, depth: int
) -> FusedList:
    """Weighted sums over the lists, sorted by (-score, doc_id), cut to `depth`.

    An empty list contributes nothing. The sum does not depend on the order of the lists, not even
    in its last bit.
    """
    position = {d: i for i, d in enumerate(dict.fromkeys(d for x in lists for d in x.doc_ids))}
    gains_MD = np.zeros((len(lists), len(position)))
    members: list[list[int]] = [[] for _ in position]
    for number, (one, weight) in enumerate(zip(lists, weights, strict=True)):
        if not len(one.doc_ids):
            continue
        at = [position[d] for d in one.doc_ids]
        values, absent = method.values(one.scores, one.ranks)
        gains_MD[number] = weight * absent
        gains_MD[number, at] = weight * values
        for i in at:
            members[i].append(number)
    # sorted, because (a + b) + c is not a + (b + c); rounded, so that ties are those on disk
    scores_D = np.sort(gains_MD, axis=0).sum(axis=0).astype(np.float32)
    doc_ids = list(position)
    best = sorted(range(len(doc_ids)), key=lambda i: (-scores_D[i], doc_ids[i]))[:depth]
    return FusedList(
        [doc_ids[i] for i in best],
        [float(scores_D[i]) for i in best],
        [tuple(members[i]) for i in best],
    )


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
        rows = len(TextTable(attempt.inputs["queries"].local() / QUERIES_FILE))
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
        query_ids = TextTable(self.inputs["queries"].local() / QUERIES_FILE).ids()
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


Plain = Annotated[Bm25 | Dense | RankGptLists | ScoredDocs | TrecRun, Field(discriminator="type")]
"""What can be fused: a new source's name goes here too."""

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Fused(Config):
    """The union of several sources' candidates, in the order of a weighted sum."""

    type: Literal["fused"] = "fused"
    sources: dict[str, Plain] = Field(min_length=2)
    """By name, in the order of the `sources` column, where names are joined by "+"."""
    method: Method = ReciprocalRank()
    """What a document gains from its place in a source's list."""
    weights: dict[str, Weight] | None = None
    """By source name; a source that is not named weighs 1."""
    depth: int = Field(100, ge=1)
    """Candidates per query, out of the union of what the sources retrieve to their own depths."""
    exclude_query_id: bool = False
    """Leave out the document that has the query's id, as BEIR does: for collections such as ArguAna
    whose queries are documents."""

    @model_validator(mode="after")
    def _names_fit(self) -> Fused:
        for name in self.sources:
            if not name or "+" in name:
                raise ValueError(f'sources: expected a name without "+", found {name!r}; rename it')
        for name in self.weights or {}:
            if name not in self.sources:
                raise ValueError(
                    f"weights: there is no source {name!r}{nearest(name, self.sources)}"
                )
        return self

    @property
    def label(self) -> str:
        return f"fusion of {', '.join(self.sources)}"

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that fuses; the sources' own candidates are steps that others can share."""
        members = tuple(
            (name, source.candidates(collection, queries, precision))
            for name, source in self.sources.items()
        )
        weights = self.weights or {}
        fused = FusedCandidates(
            members,
            queries,
            self.method,
            tuple(weights.get(n, 1.0) for n, _ in members),
            self.depth + self.exclude_query_id,
        )
        return WithoutSelf(fused, self.depth) if self.exclude_query_id else fused

    def check(self) -> None:
        """Everything that the sources need is there.

        Raises:
            ConfigError: it is not; the message begins with the source's name.
        """
        for name, source in self.sources.items():
            try:
                source.check()
            except ConfigError as error:
                raise ConfigError(f"sources.{name}: {error}") from None
