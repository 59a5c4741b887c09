"""BM25 with bm25s: an index artifact, memory-mapped by every actor of the retrieval job."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute
from pydantic import Field

from raypipe.artifacts import Artifact, Attempt, Step
from raypipe.config import Config
from raypipe.data.collection import read_docs
from raypipe.data.sets import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.inference.chunks import Counts, Work, run_chunks
from raypipe.records import CANDIDATES
from raypipe.resources import Context

CHUNK = 4096
IDS_ORDER = "ids_order.npy"
Array = np.ndarray[Any, Any]


class Bm25Options(Config):
    """How the index weighs terms; the defaults are bm25s' own."""

    k1: float = Field(1.5, ge=0)
    """Term-frequency saturation."""
    b: float = Field(0.75, ge=0, le=1)
    """Length normalisation."""
    method: Literal["lucene", "robertson", "atire", "bm25l", "bm25+"] = "lucene"
    """Variant of the formula."""
    stemmer: str | None = "english"
    """Snowball language of PyStemmer, or null."""
    stopwords: str | None = "en"
    """bm25s' list, or null."""

    def tokenize(self, texts: Any) -> list[list[str]]:
        """Terms of every text, as strings."""
        import bm25s
        import Stemmer

        stemmer = Stemmer.Stemmer(self.stemmer) if self.stemmer else None
        found: list[list[str]] = bm25s.tokenize(
            texts,
            stopwords=self.stopwords or [],
            stemmer=stemmer,
            return_ids=False,
            show_progress=False,
        )
        return found


@dataclass(frozen=True)
class Bm25Index(Step):
    """Built once, in one task of the cluster."""

    collection: Collection
    options: Bm25Options

    kind: ClassVar[str] = "bm25_index"

    @property
    def name(self) -> str:
        return self.collection.name

    def spec(self) -> Mapping[str, Any]:
        return self.options.semantic()

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        import ray

        build = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_build_index)
        counts: dict[str, int] = ray.get(build.remote(attempt, self.options))
        return counts


def _build_index(attempt: Attempt, options: Bm25Options) -> dict[str, int]:
    import bm25s
    import Stemmer

    docs = read_docs(attempt.inputs["collection"].local() / DOCS_FILE)
    tokens = bm25s.tokenize(
        docs.iter_texts(),
        stopwords=options.stopwords or [],
        stemmer=Stemmer.Stemmer(options.stemmer) if options.stemmer else None,
        show_progress=False,
    )
    index = bm25s.BM25(k1=options.k1, b=options.b, method=options.method)
    index.index(tokens, show_progress=False)
    ids = docs.ids().combine_chunks() if isinstance(docs.ids(), pa.ChunkedArray) else docs.ids()
    order = np.empty(len(ids), dtype=np.int64)
    order[pa.compute.sort_indices(ids).to_numpy()] = np.arange(len(ids))
    with tempfile.TemporaryDirectory() as folder:
        index.save(folder, show_progress=False)
        np.save(Path(folder) / IDS_ORDER, order)
        attempt.put_directory(Path(folder))
    return {"docs": len(ids), "terms": len(index.vocab_dict)}


@dataclass(frozen=True)
class Bm25Candidates(Step):
    """The first `depth` documents of every query; a document with score 0 is no candidate."""

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
        queries = attempt.inputs["queries"]
        rows = len(read_docs(queries.local() / QUERIES_FILE))
        job = _Retrieve(
            attempt.inputs["index"],
            queries,
            attempt.inputs["collection"],
            self.index.options,
            self.depth,
        )
        return run_chunks(job, rows, CHUNK, attempt, context, model=False)


@dataclass(frozen=True)
class _Retrieve:
    index: Artifact
    queries: Artifact
    collection: Artifact
    options: Bm25Options
    depth: int

    def build(self) -> Work:
        search = Search(self.index.local(), self.options)
        queries = read_docs(self.queries.local() / QUERIES_FILE)
        doc_ids = read_docs(self.collection.local() / DOCS_FILE).ids()
        query_ids = queries.ids()

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            rows = []
            found = search(queries.texts(chunk), self.depth)
            for number, (positions, scores) in zip(chunk, found, strict=True):
                rows.append(
                    {
                        "query_id": query_ids[number].as_py(),
                        "doc_ids": doc_ids.take(positions).to_pylist(),
                        "ranks": range(1, len(positions) + 1),
                        "scores": scores,
                        "sources": ["bm25"] * len(positions),
                    }
                )
            empty = sum(not len(positions) for positions, _ in found)
            counts = {
                "candidates": sum(len(positions) for positions, _ in found),
                "queries_without_candidates": empty,
            }
            return pa.Table.from_pylist(rows, schema=CANDIDATES), counts

        return work


class Search:
    """Exact top-k of a saved index: ties are broken by document id, score 0 is not a result."""

    def __init__(self, folder: Path, options: Bm25Options) -> None:
        import bm25s

        self._index = bm25s.BM25.load(folder, mmap=True)
        self._index.backend = "numba"
        self._options = options
        self._ids_order: Array = np.load(folder / IDS_ORDER, mmap_mode="r")

    def __call__(self, texts: list[str], depth: int) -> list[tuple[Array, Array]]:
        """(document positions, float32 scores) per query, best first."""
        vocabulary = self._index.vocab_dict
        tokens = [[t for t in terms if t in vocabulary] for terms in self._options.tokenize(texts)]
        out: list[tuple[Array, Array]] = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(
            texts
        )
        open_queries = [i for i, terms in enumerate(tokens) if terms]
        size = len(self._ids_order)
        fetch = min(depth + 32, size)
        while open_queries:
            positions, scores = self._index.retrieve(
                [tokens[i] for i in open_queries], k=fetch, n_threads=0, show_progress=False
            )
            again = []
            for query, found, values in zip(open_queries, positions, scores, strict=True):
                cut = depth < fetch and values[depth - 1] > 0 and values[-1] >= values[depth - 1]
                if cut and fetch < size:  # documents tied with the last one may be missing
                    again.append(query)
                    continue
                order = np.lexsort((self._ids_order[found], -values))
                keep = order[values[order] > 0][:depth]
                out[query] = (found[keep].astype(np.int64), values[keep].astype(np.float32))
            open_queries, fetch = again, min(fetch * 4, size)
        return out
