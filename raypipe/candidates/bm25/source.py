"""BM25 as a candidate source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from raypipe.candidates.bm25.index import Bm25Index
from raypipe.candidates.bm25.search import Bm25Search, Found
from raypipe.candidates.bm25.vocabulary import Bm25Options
from raypipe.candidates.without_self import DepthOptions
from raypipe.config import ConfigError
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.names import quoted
from raypipe.records import CANDIDATES
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.text_table import TextTable


class Bm25(DepthOptions, Bm25Options):
    """The documents that share terms with the query, weighted by BM25 (Robertson 2009)."""

    type: Literal["bm25"] = "bm25"

    label: ClassVar[str] = "BM25"

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that retrieves; all query sets share one index."""
        return self.cut(Bm25Candidates(self, Bm25Index(collection, self), queries))

    def check(self) -> None:
        """Nothing outside the recipe is needed."""


CHUNK = 4096


@dataclass(frozen=True)
class Bm25Candidates(Step):
    """The best documents of every query that share a term with it."""

    source: Bm25
    index: Bm25Index
    queries: Queries

    kind: ClassVar[str] = "candidates"
    libraries: ClassVar[tuple[str, ...]] = ("bm25s", "PyStemmer")

    @property
    def name(self) -> str:
        return f"bm25-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        return {"depth": self.source.retrieved}

    def inputs(self) -> Mapping[str, Step]:
        return {
            "index": self.index,
            "queries": self.queries,
            "collection": self.index.collection,
        }

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        queries = TextTable(attempt.inputs["queries"].local() / QUERIES_FILE)
        source = self.source.settled(self.index.collection)
        job = Retrieve(dict(attempt.inputs), source)
        counts = run_chunks(job, len(queries), CHUNK, attempt, context, model=False)
        if counts["queries_without_candidates"] == len(queries):
            text = queries.text(0)
            raise ConfigError(
                f"candidates: BM25 finds no document for any of {len(queries)} queries, such as "
                f"{quoted(text, 60)} with the terms {source.tokenize([text])[0][:5]}; name the "
                f"collection of these queries, another `analyser` than {source.analyser} where a "
                "script has no spaces, or another source (dense, trec_run)"
            )
        return counts


@dataclass(frozen=True)
class Retrieve:
    """The job of `Bm25Candidates`."""

    inputs: dict[str, Artifact]
    source: Bm25

    def build(self) -> Work:
        search = Bm25Search(self.inputs["index"].local(), self.source)
        queries = TextTable(self.inputs["queries"].local() / QUERIES_FILE)
        docs = TextTable(self.inputs["collection"].local() / DOCS_FILE)
        query_ids = queries.ids()

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            terms = self.source.tokenize(queries.texts(chunk))
            results = search.ranked(terms, self.source.retrieved)
            ids = query_ids.slice(chunk.start, len(chunk)).combine_chunks()
            counts = {
                "candidates": sum(len(positions) for positions, _ in results),
                "queries_without_candidates": sum(not len(positions) for positions, _ in results),
                "queries_without_terms": sum(not query_terms for query_terms in terms),
            }
            return _candidates(ids, docs, results), counts

        return work


def _candidates(query_ids: pa.Array, docs: TextTable, results: list[Found]) -> pa.Table:
    sizes = np.array([len(positions) for positions, _ in results])
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
    positions, scores = (np.concatenate(column) for column in zip(*results, strict=True))
    ranks = np.arange(1, len(positions) + 1) - np.repeat(offsets.to_numpy()[:-1], sizes)
    columns = (
        docs.ids_at(positions),
        pa.array(ranks, pa.int32()),
        pa.array(scores),
        pa.repeat("bm25", len(positions)),
    )
    lists = [pa.ListArray.from_arrays(offsets, column) for column in columns]
    return pa.table([query_ids, *lists], schema=CANDIDATES)
