"""Keeping the queries whose passage is found again: by retrievers, then by a teacher.

Round-trip consistency as CADET has it (Tamber et al. 2025, 2505.19274): the passage is among the
first 20 of a retriever, then the teacher's first of the list. Queries of other splits than `train`
are not asked of the teacher: its quality on them would be 1 by construction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from raypipe.candidates.bm25.source import Bm25
from raypipe.candidates.fused import Fused, FusedCandidates, Plain
from raypipe.config import Config, ConfigError, blamed_on
from raypipe.datasets.queries import SelectedQueries
from raypipe.datasets.steps import QRELS_FILE, QUERIES_FILE, write_queries
from raypipe.names import Name
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.synthesis.generated import type_of_query
from raypipe.synthesis.known_items import SyntheticQueries
from raypipe.tables.rows import Rows
from raypipe.teachers import Teacher

BLOCK = 4096
"""Queries whose lists are Python objects at a time."""


class TaughtLists(Config):
    """What training draws its documents from instead of the recipe's candidates."""

    count: int = Field(20, ge=2)
    """Documents of a list, the query's own passage first."""
    choice: Literal["first", "stratified"] = "first"
    """first: the teacher's first ones. stratified: its first one, and those nearest to equal steps
    down to its lowest value."""


class Consistency(Config):
    """Which queries are kept; each rule counts what it drops, by the type of the query."""

    retrievers: dict[Name, Plain] = Field(default_factory=lambda: {"bm25": Bm25()}, min_length=1)
    """Sources by name, each of which must find a query's passage. The lists of several are fused by
    reciprocal ranks, so that the teacher scores once."""
    within: int = Field(20, ge=1)
    """The rank that the passage must reach, copies and held-out passages aside."""
    shortest: int = Field(20, ge=1)
    """Documents that a query's list must have."""
    teacher: Teacher | None = None
    """Scores the list of each training query; its first document must be the query's passage. Null
    asks no teacher."""
    pool: Literal["all", "top"] = "all"
    """Of which scores percentiles are taken, for each type of query: those of all documents of the
    lists that are left, or the highest of each list."""
    percentile: float = Field(25, ge=0, le=100)
    """Queries whose highest score is below this percentile of the pool are dropped."""
    lists: TaughtLists | None = None
    """Train on the teacher's lists, its scores scaled to [0, 1] between percentiles 1 and 99 of the
    pool; with `teacher: {type: list_scores}` in the recipe they are what distillation fits."""

    @model_validator(mode="after")
    def _sensible(self) -> Consistency:
        for name, source in self.retrievers.items():
            if getattr(source, "of", None) is not None:
                raise ValueError(
                    f"retrievers.{name}.of: queries are kept before any stage is trained on them; "
                    "name a backbone"
                )
            if source.depth < max(self.within, self.shortest):
                raise ValueError(
                    f"retrievers.{name}: its depth {source.depth} is less than within="
                    f"{self.within} or shortest={self.shortest}; raise the depth"
                )
        if self.teacher is None and self.lists is not None:
            raise ValueError("lists: they are a teacher's; name a teacher, or leave lists out")
        if self.teacher is not None and self.teacher.values != "score":
            raise ValueError(
                f"teacher: percentiles need scores, the {self.teacher.type} teacher gives a rank; "
                "name another"
            )
        return self

    def check(self) -> None:
        """What retrievers and teacher need is there.

        Raises:
            ConfigError: it is not; the message begins with the name.
        """
        for name, source in self.retrievers.items():
            with blamed_on(f"filter.retrievers.{name}"):
                source.check()
        if self.teacher is not None:
            self.teacher.check()

    def fused(self, lists: Mapping[str, Step], queries: SyntheticQueries) -> Step:
        """One list per query.

        Args:
            lists: by the retriever's name.
        """
        if len(lists) == 1:
            return next(iter(lists.values()))
        depth = max(source.depth for source in self.retrievers.values())
        fusion = Fused(sources=self.retrievers, depth=depth)
        return FusedCandidates(fusion, lists, queries)


@dataclass(frozen=True)
class RetrievedQueries(SyntheticQueries):
    """The queries whose passage every retriever finds."""

    written: SyntheticQueries = field(kw_only=True)
    lists: Mapping[str, Step] = field(kw_only=True)
    """Candidates by the retriever's name."""
    fused: Step = field(kw_only=True)
    """The candidates that the teacher is to score."""
    rules: Consistency = field(kw_only=True)

    filtered_by: ClassVar[str] = "retrieval"

    @property
    def name(self) -> str:
        return f"retrieved-{self.written.name}"[:90]

    def spec(self) -> Mapping[str, Any]:
        rules = {"within": self.rules.within, "shortest": self.rules.shortest}
        return {**rules, "limit": self.queries.limit, "skip": self.queries.skip}

    def inputs(self) -> Mapping[str, Step]:
        lists = {f"retriever {name}": step for name, step in self.lists.items()}
        return {"written": self.written, "fused": self.fused, **lists}

    def chain(self) -> tuple[SyntheticQueries, ...]:
        """This set and those that it was chosen from, the first one that was written first."""
        return (*self.written.chain(), self)

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        queries = read_queries(attempt.inputs["written"])
        passage_of = passages_of(queries)
        lists = {name: Rows(attempt.inputs[f"retriever {name}"]) for name in self.lists}
        fused = Rows(attempt.inputs["fused"])
        counts: Counter[str] = Counter()
        kept: set[str] = set()
        for ids in blocks(queries):
            found = [rows.of_queries(ids) for rows in lists.values()]
            of_teacher = fused.of_queries(ids)
            for query_id in ids:
                reason = None
                ranked = [first_row(rows, query_id)["doc_ids"] for rows in found]
                if any(passage_of[query_id] not in docs[: self.rules.within] for docs in ranked):
                    reason = "not_retrieved"
                elif len(first_row(of_teacher, query_id)["doc_ids"]) < self.rules.shortest:
                    reason = "list_too_short"
                tally(counts, query_id, reason)
                kept |= set() if reason else {query_id}
        return write_kept(queries, kept, self, attempt, counts)


def read_queries(artifact: Artifact) -> SelectedQueries:
    """The content of a set of queries."""
    folder = artifact.local()
    queries = pa.ipc.open_file(pa.memory_map(str(folder / QUERIES_FILE))).read_all()
    return SelectedQueries(queries, pq.read_table(folder / QRELS_FILE), dict(artifact.counts))


def passages_of(queries: SelectedQueries) -> dict[str, str]:
    """The one relevant document of every query."""
    columns = (queries.qrels[name].to_pylist() for name in ("query_id", "doc_id"))
    return dict(zip(*columns, strict=True))


def blocks(queries: SelectedQueries) -> Iterator[list[str]]:
    """Ids of the queries in order, `BLOCK` at a time."""
    ids = queries.queries["query_id"].to_pylist()
    return (ids[start : start + BLOCK] for start in range(0, len(ids), BLOCK))


def first_row(rows_by_query: Mapping[str, Sequence[Mapping[str, Any]]], query_id: str) -> Any:
    """The list of a query; an empty one where it has none."""
    empty: dict[str, Any] = {"doc_ids": [], "scores": [], "ranks": [], "sources": []}
    return rows_by_query.get(query_id, [empty])[0]


def tally(counts: Counter[str], query_id: str, reason: str | None) -> None:
    """Count a query by its type, and why it is dropped; None keeps it."""
    kind = type_of_query(query_id)
    counts[f"asked_of_{kind}"] += 1
    if reason is not None:
        counts[f"dropped_{reason}_of_{kind}"] += 1


def write_kept(
    queries: SelectedQueries,
    kept: set[str],
    step: SyntheticQueries,
    attempt: Attempt,
    counts: Counter[str],
) -> dict[str, int]:
    """Write the queries that a filter keeps, from `skip` to `limit`; return all counts.

    Raises:
        ConfigError: none is left; the counters say which rule dropped how many.
    """
    table, asked = queries.queries, step.queries
    table = table.filter(pc.is_in(table["query_id"], value_set=pa.array(sorted(kept), pa.string())))
    left = len(table)
    table = table.slice(asked.skip, asked.limit)
    if not len(table):
        raise ConfigError(
            f"{step.name}: no query is left (skip {asked.skip}); found {dict(counts)}; soften the "
            "filter that dropped most, write for more passages, or ask for other types"
        )
    ids = table["query_id"].combine_chunks()
    qrels = queries.qrels.filter(pc.is_in(queries.qrels["query_id"], value_set=ids))
    write_queries(SelectedQueries(table.combine_chunks(), qrels, {}), attempt)
    types = Counter(f"queries_of_{type_of_query(i)}" for i in ids.to_pylist())
    sizes = {"queries": len(table), "usable_queries": left, "qrels": len(qrels)}
    return {**sizes, **counts, **dict(sorted(types.items()))}
