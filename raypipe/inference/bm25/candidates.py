"""BM25 candidates: one Ray Data job whose actors share the index in the memory map of a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypipe.artifacts import Artifact, Attempt, Step
from raypipe.data.collection import DocTable, read_docs
from raypipe.data.sets import DOCS_FILE, QUERIES_FILE, Queries
from raypipe.inference.bm25.index import Bm25Index
from raypipe.inference.bm25.search import Found, Search
from raypipe.inference.bm25.vocabulary import Bm25Options
from raypipe.inference.chunks import Counts, Work, run_chunks
from raypipe.records import CANDIDATES
from raypipe.resources import Context

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
        rows = len(read_docs(inputs["queries"].local() / QUERIES_FILE))
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
        queries = read_docs(self.queries.local() / QUERIES_FILE)
        docs = read_docs(self.collection.local() / DOCS_FILE)
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


def _candidates(query_ids: pa.Array, docs: DocTable, found: list[Found]) -> pa.Table:
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
