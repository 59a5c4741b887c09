"""A bi-encoder as a candidate source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from raypipe.candidates.dense.exact import ExactSearch, Found
from raypipe.candidates.dense.faiss_index import FaissIndex, FaissSearch, HnswIndex, IvfIndex
from raypipe.candidates.without_self import WithoutSelf
from raypipe.config import Config
from raypipe.datasets.dataset import file_safe
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.inference.embeddings import Embeddings, Vectors
from raypipe.inference.tokens import Tokens
from raypipe.models.backbone import Backbone
from raypipe.models.bi_encoder import BiEncoder
from raypipe.records import CANDIDATES
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.text_table import TextTable

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
        rows = len(TextTable(attempt.inputs["queries"].local() / QUERIES_FILE))
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
        docs = TextTable(self.inputs["collection"].local() / DOCS_FILE)
        query_ids = TextTable(self.inputs["queries"].local() / QUERIES_FILE).ids()
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
        self, chunk: range, found: Found, docs: TextTable, query_ids: pa.ChunkedArray
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


class Dense(BiEncoder):
    """The documents whose vectors have the highest dot product with the query's."""

    type: Literal["dense"] = "dense"
    depth: int = Field(100, ge=1)
    """Candidates per query."""
    exclude_query_id: bool = False
    """Leave out the document that has the query's id, as BEIR does: for collections such as ArguAna
    whose queries are documents."""
    index: Index = ExactIndex()
    """exact compares everything; ivf and hnsw are approximate and need FAISS."""
    name: str = Field("dense", min_length=1)
    """What the source is called in tables."""

    @property
    def label(self) -> str:
        return self.name

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that retrieves; every text is encoded once, for teachers of this model too."""
        backbone = Backbone(self.backbone)
        encoder = BiEncoder(**{name: getattr(self, name) for name in BiEncoder.model_fields})
        docs = Embeddings(Tokens(collection, backbone), encoder, precision)
        asked = Embeddings(Tokens(queries, backbone), encoder, precision)
        depth = self.depth + self.exclude_query_id
        found = DenseCandidates(docs, asked, self.index, depth, self.name)
        return WithoutSelf(found, self.depth) if self.exclude_query_id else found

    def check(self) -> None:
        """The backbone is there, and FAISS if the index needs it.

        Raises:
            ConfigError: it is not.
        """
        Backbone(self.backbone).spec()
        self.index.check()
