"""Several candidate sources as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from raypipe.candidates.bm25.source import Bm25
from raypipe.candidates.dense.source import Dense
from raypipe.candidates.own_search import OwnSearch
from raypipe.candidates.rank_fusion import FusedList, MemberList, Method, ReciprocalRank, fuse
from raypipe.candidates.rankgpt import RankGptLists
from raypipe.candidates.scored_docs import ScoredDocs
from raypipe.candidates.search_engine.source import SearchEngine
from raypipe.candidates.trec_run import TrecRun
from raypipe.candidates.without_self import DepthOptions
from raypipe.config import blamed_on, nearest
from raypipe.datasets.steps import QUERIES_FILE, Collection, Queries
from raypipe.names import Name
from raypipe.plugins.choice import OrPlugIn
from raypipe.records import CANDIDATES, candidate_row
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.rows import Rows
from raypipe.tables.text_table import TextTable

CHUNK = 4096
COLUMNS = ("query_id", "doc_ids", "scores", "ranks")

PlainSource = Bm25 | Dense | RankGptLists | ScoredDocs | SearchEngine | TrecRun
"""What can be fused: the name of a new source goes here."""
OWN = OrPlugIn("source of candidates", OwnSearch)
Plain = Annotated[PlainSource, Field(discriminator="type"), OWN]

Weight = Annotated[float, Field(gt=0, le=1e9)]


class Fused(DepthOptions):
    """The union of several sources' candidates, in the order of a weighted sum."""

    type: Literal["fused"] = "fused"
    sources: dict[Name, Plain] = Field(min_length=2)
    """By name, in the order of the `sources` column, where names are joined by "+"."""
    method: Method = ReciprocalRank()
    """What a document gains from its rank or score in a source's list."""
    weights: dict[str, Weight] | None = None
    """By source name; a source that is not named weighs 1."""
    depth: int = Field(100, ge=1)
    """Candidates per query, out of the union of what the sources retrieve to their own depths."""

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
        members = {
            name: source.candidates(collection, queries, precision)
            for name, source in self.sources.items()
        }
        return self.joined(members, queries)

    def joined(self, members: Mapping[str, Step], queries: Queries) -> Step:
        """The step that fuses the candidates of the sources, which are given by name."""
        return self.cut(FusedCandidates(self, members, queries))

    @property
    def member_weights(self) -> list[float]:
        """One per source, in their order."""
        return [(self.weights or {}).get(name, 1.0) for name in self.sources]

    def check(self) -> None:
        """Everything that the sources need is there.

        Raises:
            ConfigError: something is missing; the message begins with the source's name.
        """
        for name, source in self.sources.items():
            with blamed_on(f"sources.{name}"):
                source.check()


@dataclass(frozen=True)
class FusedCandidates(Step):
    """One row per query of the set, also where a member has no row for the query."""

    source: Fused
    members: Mapping[str, Step]
    """Candidates by the name of their source, in the order of the recipe."""
    queries: Queries

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"fused-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        return {
            "members": list(self.members),
            "method": self.source.method.semantic(),
            "weights": self.source.member_weights,
            "depth": self.source.retrieved,
        }

    def inputs(self) -> Mapping[str, Step]:
        return {"queries": self.queries, **{_input(n): step for n, step in self.members.items()}}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = len(TextTable(attempt.inputs["queries"].local() / QUERIES_FILE))
        job = _Fuse(dict(attempt.inputs), self.source)
        return run_chunks(job, rows, CHUNK, attempt, context, model=False)


def _input(name: str) -> str:
    return f"member {name}"


@dataclass(frozen=True)
class _Fuse:
    inputs: dict[str, Artifact]
    source: Fused

    @property
    def names(self) -> list[str]:
        return list(self.source.sources)

    def build(self) -> Work:
        query_ids = TextTable(self.inputs["queries"].local() / QUERIES_FILE).ids()
        members = [Rows(self.inputs[_input(name)], COLUMNS) for name in self.names]
        weights = self.source.member_weights

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            chunk_ids = query_ids.slice(chunk.start, len(chunk)).to_pylist()
            by_member = [lists_of(member, chunk_ids) for member in members]
            counts: Counter[str] = Counter({f"from_{name}": 0 for name in self.names})
            rows = []
            for query_id, *lists in zip(chunk_ids, *by_member, strict=True):
                self._check(query_id, lists)
                fused = fuse(lists, weights, self.source.method, self.source.retrieved)
                rows.append(self._row(query_id, fused))
                counts.update(f"from_{self.names[m]}" for have in fused.members for m in have)
            counts["candidates"] = sum(len(row["doc_ids"]) for row in rows)
            counts["queries_without_candidates"] = sum(not row["doc_ids"] for row in rows)
            return pa.Table.from_pylist(rows, schema=CANDIDATES), dict(counts)

        return work

    def _check(self, query_id: str, lists: Sequence[MemberList]) -> None:
        for name, ranked in zip(self.names, lists, strict=True):
            wrong = ranked.scores[~np.isfinite(ranked.scores)]
            if self.source.method.reads_scores and len(wrong):
                raise ValueError(
                    f"query {query_id}: expected finite scores from {name!r}, found {wrong[0]}; "
                    "method.type=reciprocal_rank reads ranks only"
                )

    def _row(self, query_id: str, fused: FusedList) -> dict[str, Any]:
        sources = ["+".join(self.names[m] for m in have) for have in fused.members]
        return candidate_row(query_id, fused.doc_ids, fused.scores, sources)


def lists_of(member: Rows, query_ids: Sequence[str]) -> list[MemberList]:
    """The candidates of these queries, by id; an empty list where the member has no such query."""
    rows_by_query = member.of_queries(query_ids)
    empty: dict[str, Any] = {"doc_ids": [], "scores": [], "ranks": []}
    rows = (rows_by_query.get(query_id, [empty])[0] for query_id in query_ids)
    return [
        MemberList(row["doc_ids"], np.array(row["scores"], float), np.array(row["ranks"], float))
        for row in rows
    ]
