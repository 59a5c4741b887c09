"""A search of the user's own as a candidate source."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from raypipe.candidates.without_self import DepthOptions
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.records import CANDIDATES, candidate_row
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.text_table import TextTable

CHUNK = 512
Hits = Sequence[tuple[str, float]]
"""(doc_id, score) of the documents that were found for one query; a higher score is better."""
Search = Callable[[Sequence[str]], Sequence[Hits]]
"""Given the texts of some queries, the hits of each."""


class OwnSearch(DepthOptions):
    """Base of a source of one's own: `build` makes a search, once in every actor."""

    type: str = ""
    """Declared here, so that recipes are printed with `type` first."""

    gpu: ClassVar[bool] = False
    """Whether actors ask for a GPU where the cluster has some."""

    @property
    def label(self) -> str:
        """The source's name in tables."""
        return type(self).__name__

    @abstractmethod
    def build(self, docs: TextTable) -> Search:
        """The search over a collection; `zip(docs.ids().to_pylist(), docs.iter_texts())` are its
        documents."""

    def check(self) -> None:
        """Raise `ConfigError` if something that `build` needs is not there."""

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that searches."""
        return self.cut(OwnCandidates(self, collection, queries))


@dataclass(frozen=True)
class OwnCandidates(Step):
    """The best documents that the search finds, by falling score; ties keep its order."""

    source: OwnSearch
    collection: Collection
    queries: Queries

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"{type(self.source).__name__}-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        return {"source": self.source.semantic(), "depth": self.source.retrieved}

    def inputs(self) -> Mapping[str, Step]:
        return {"queries": self.queries, "collection": self.collection}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        queries = TextTable(attempt.inputs["queries"].local() / QUERIES_FILE)
        job = _OwnRetrieve(dict(attempt.inputs), self.source)
        return run_chunks(job, len(queries), CHUNK, attempt, context, model=self.source.gpu)


@dataclass(frozen=True)
class _OwnRetrieve:
    inputs: dict[str, Artifact]
    source: OwnSearch

    def build(self) -> Work:
        queries = TextTable(self.inputs["queries"].local() / QUERIES_FILE)
        docs = TextTable(self.inputs["collection"].local() / DOCS_FILE)
        search, query_ids = self.source.build(docs), queries.ids()

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            ids = query_ids.slice(chunk.start, len(chunk)).to_pylist()
            found = search(queries.texts(chunk))
            if len(found) != len(ids):
                raise ValueError(
                    f"source {self.source.type}: expected hits of {len(ids)} queries, found "
                    f"{len(found)}; return a list for every query, empty where nothing is found"
                )
            counts: Counter[str] = Counter(candidates=0, queries_without_candidates=0)
            rows = [
                self._row(query_id, hits, docs, counts)
                for query_id, hits in zip(ids, found, strict=True)
            ]
            return pa.Table.from_pylist(rows, schema=CANDIDATES), dict(counts)

        return work

    def _row(
        self, query_id: str, hits: Hits, docs: TextTable, counts: Counter[str]
    ) -> dict[str, Any]:
        best: dict[str, float] = {}
        for doc_id, score in sorted(hits, key=lambda hit: -float(hit[1])):
            if not math.isfinite(score):
                raise ValueError(
                    f"source {self.source.type}: query {query_id!r}, document {doc_id!r}: expected "
                    f"a finite score, found {score}"
                )
            counts["duplicates"] += doc_id in best
            best.setdefault(doc_id, float(score))
        there = docs.rows_of(list(best)) >= 0
        known = [doc_id for doc_id, is_there in zip(best, there, strict=True) if is_there]
        counts["unknown_documents"] += len(best) - len(known)
        kept = known[: self.source.retrieved]
        counts["beyond_depth"] += len(known) - len(kept)
        counts["candidates"] += len(kept)
        counts["queries_without_candidates"] += not kept
        return candidate_row(query_id, kept, [best[doc_id] for doc_id in kept], self.source.label)
