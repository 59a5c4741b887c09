"""Dense retrieval: dot products of stored vectors, exactly or through a FAISS index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from raypipe.artifacts import Artifact, Attempt, Step
from raypipe.config import Config
from raypipe.data.collection import DocTable, read_docs
from raypipe.data.dataset import file_safe
from raypipe.data.sets import DOCS_FILE, QUERIES_FILE
from raypipe.inference.chunks import Counts, Work, run_chunks
from raypipe.inference.dense.embeddings import Embeddings
from raypipe.inference.dense.faiss_index import FaissIndex, FaissSearch, HnswIndex, IvfIndex
from raypipe.inference.dense.topk import ExactSearch, Found
from raypipe.inference.dense.vectors import Vectors
from raypipe.records import CANDIDATES
from raypipe.resources import Context

CHUNK = 1024
RECALL_QUERIES = 200


class ExactIndex(Config):
    """Every document is compared with every query; nothing is built."""

    type: Literal["exact"] = "exact"

    def check(self) -> None:
        """Nothing outside the recipe is needed."""


Index = Annotated[ExactIndex | IvfIndex | HnswIndex, Field(discriminator="type")]


@dataclass(frozen=True)
class DenseCandidates(Step):
    """The first `depth` documents of every query by the dot product of their vectors."""

    doc_vectors: Embeddings
    query_vectors: Embeddings
    index: ExactIndex | IvfIndex | HnswIndex
    depth: int
    source: str
    """What the `sources` column says."""

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"{file_safe(self.source)}-{self.query_vectors.tokens.texts.name}"

    def spec(self) -> Mapping[str, Any]:
        return {"depth": self.depth, "source": self.source, "index": self.index.semantic()}

    def inputs(self) -> Mapping[str, Step]:
        steps: dict[str, Step] = {
            "doc_vectors": self.doc_vectors,
            "query_vectors": self.query_vectors,
            "collection": self.doc_vectors.tokens.texts,
            "queries": self.query_vectors.tokens.texts,
        }
        if isinstance(self.index, ExactIndex):
            return steps
        return {**steps, "index": FaissIndex(self.doc_vectors, self.index)}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = len(read_docs(attempt.inputs["queries"].local() / QUERIES_FILE))
        exact = isinstance(self.index, ExactIndex)
        device = context.device() if exact else "cpu"
        job = _Retrieve(dict(attempt.inputs), self.index, self.depth, self.source, device)
        counts: dict[str, Any] = run_chunks(job, rows, CHUNK, attempt, context, model=exact)
        if not exact:
            kept, wanted = counts.pop("exact_candidates_found"), counts.pop("exact_candidates")
            counts["recall_against_exact"] = kept / wanted
        return counts


@dataclass(frozen=True)
class _Retrieve:
    inputs: dict[str, Artifact]
    index: ExactIndex | IvfIndex | HnswIndex
    depth: int
    source: str
    device: str

    def build(self) -> Work:
        vectors = Vectors(self.inputs["doc_vectors"].local())
        queries = Vectors(self.inputs["query_vectors"].local())
        docs = read_docs(self.inputs["collection"].local() / DOCS_FILE)
        query_ids = read_docs(self.inputs["queries"].local() / QUERIES_FILE).ids()
        order = docs.places()
        exact = ExactSearch(vectors, order, self.device)
        search: ExactSearch | FaissSearch = exact
        if not isinstance(self.index, ExactIndex):
            search = FaissSearch(self.inputs["index"].local(), self.index, vectors, order)

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            asked = queries.take(chunk)
            found = search(asked, self.depth)
            counts = {
                "candidates": sum(len(rows) for rows, _ in found),
                "queries_without_candidates": sum(not len(rows) for rows, _ in found),
            }
            if search is not exact:
                sample = max(RECALL_QUERIES - chunk.start, 0)
                counts |= recall_counts(exact(asked[:sample], self.depth), found)
            return self._table(chunk, found, docs, query_ids), counts

        return work

    def _table(
        self, chunk: range, found: Found, docs: DocTable, query_ids: pa.ChunkedArray
    ) -> pa.Table:
        doc_ids = iter(docs.ids_at(np.concatenate([rows for rows, _ in found])).to_pylist())
        out = [
            {
                "query_id": query_ids[number].as_py(),
                "doc_ids": list(islice(doc_ids, len(rows))),
                "ranks": range(1, len(rows) + 1),
                "scores": scores,
                "sources": [self.source] * len(rows),
            }
            for number, (rows, scores) in zip(chunk, found, strict=True)
        ]
        return pa.Table.from_pylist(out, schema=CANDIDATES)


def recall_counts(exact: Found, found: Found) -> Counts:
    """How many documents exact search gives for its queries, and how many of them were found."""
    pairs = zip(exact, found, strict=False)  # exact ran for the first queries only
    kept = sum(int(np.isin(wanted, got).sum()) for (wanted, _), (got, _) in pairs)
    wanted = sum(len(rows) for rows, _ in exact)
    return {"exact_candidates_found": kept, "exact_candidates": wanted}
