"""BM25 as a candidate source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from raypipe.candidates.bm25.index import SHARD_DOCS, Bm25Index
from raypipe.candidates.bm25.search import Found, Search
from raypipe.candidates.bm25.vocabulary import Bm25Options
from raypipe.candidates.without_self import WithoutSelf
from raypipe.config import NOT_SEMANTIC
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.records import CANDIDATES
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.text_table import TextTable


class Bm25(Bm25Options):
    """The documents that share terms with the query, weighted by BM25 (Robertson 2009)."""

    type: Literal["bm25"] = "bm25"
    depth: int = Field(100, ge=1)
    """Candidates per query."""
    exclude_query_id: bool = False
    """Leave out the document that has the query's id, as BEIR does: for collections such as ArguAna
    whose queries are documents."""
    shard_docs: Annotated[int, NOT_SEMANTIC] = Field(SHARD_DOCS, ge=1, lt=2**31)
    """Most documents per part of the index; parts are built in parallel, each in the memory of one
    actor (about 20 bytes per distinct term of a document), and give the scores of one index."""

    label: ClassVar[str] = "BM25"

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that retrieves; all query sets share one index."""
        fields = {name: getattr(self, name) for name in Bm25Options.model_fields}
        index = Bm25Index(collection, Bm25Options(**fields), self.shard_docs)
        if self.exclude_query_id:
            return WithoutSelf(Bm25Candidates(index, queries, self.depth + 1), self.depth)
        return Bm25Candidates(index, queries, self.depth)

    def check(self) -> None:
        """Nothing outside the recipe is needed."""


CHUNK = 4096


@dataclass(frozen=True)
class Bm25Candidates(Step):
    """The first `depth` documents of every query that share a term with it."""

    index: Bm25Index
    queries: Queries
    depth: int

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"bm25-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        return {"depth": self.depth}

    def inputs(self) -> Mapping[str, Step]:
        return {
            "index": self.index,
            "queries": self.queries,
            "collection": self.index.collection,
        }

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        inputs = attempt.inputs
        rows = len(TextTable(inputs["queries"].local() / QUERIES_FILE))
        job = Retrieve(
            inputs["index"],
            inputs["queries"],
            inputs["collection"],
            self.index.options,
            self.depth,
        )
        return run_chunks(job, rows, CHUNK, attempt, context, model=False)


@dataclass(frozen=True)
class Retrieve:
    """The job of `Bm25Candidates`."""

    index: Artifact
    queries: Artifact
    collection: Artifact
    options: Bm25Options
    depth: int

    def build(self) -> Work:
        search = Search(self.index.local(), self.options)
        queries = TextTable(self.queries.local() / QUERIES_FILE)
        docs = TextTable(self.collection.local() / DOCS_FILE)
        query_ids = queries.ids()

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            terms = self.options.tokenize(queries.texts(chunk))
            found = search.ranked(terms, self.depth)
            ids = query_ids.slice(chunk.start, len(chunk)).combine_chunks()
            counts = {
                "candidates": sum(len(positions) for positions, _ in found),
                "queries_without_candidates": sum(not len(positions) for positions, _ in found),
                "queries_without_terms": sum(not one for one in terms),
            }
            return _candidates(ids, docs, found), counts

        return work


def _candidates(query_ids: pa.Array, docs: TextTable, found: list[Found]) -> pa.Table:
    sizes = np.array([len(positions) for positions, _ in found])
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
    positions, scores = (np.concatenate(column) for column in zip(*found, strict=True))
    ranks = np.arange(1, len(positions) + 1) - np.repeat(offsets.to_numpy()[:-1], sizes)
    columns = (
        docs.ids_at(positions),
        pa.array(ranks, pa.int32()),
        pa.array(scores),
        pa.repeat("bm25", len(positions)),
    )
    lists = [pa.ListArray.from_arrays(offsets, column) for column in columns]
    return pa.table([query_ids, *lists], schema=CANDIDATES)
