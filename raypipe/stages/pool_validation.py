"""Validation by retrieval: the model ranks a pool of documents, drawn once, in the workers.

Shapes: Q validation queries, D documents of a worker's share of the pool, H numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from torch import nn

from raypipe.candidates.dense.exact import ExactSearch, Found
from raypipe.datasets.steps import DOCS_FILE
from raypipe.evaluation.measures import evaluate, means
from raypipe.inference.embeddings import Vectors
from raypipe.inference.vector_pairs import VectorPairScorer
from raypipe.records import RUN
from raypipe.stages.selection_pool import SelectionPool
from raypipe.stages.validation import Validation
from raypipe.storage.artifacts import Artifact
from raypipe.tables.text_table import TextTable
from raypipe.train.parallel import gathered, rank_and_world

Array = np.ndarray[Any, Any]
DEPTH = 1000
"""Documents per query that measures see."""
AT_A_TIME = 1024
"""Queries that are searched for together."""


@dataclass(frozen=True)
class PoolValidation:
    """The pool of a stage; it reads no test query."""

    validation: Validation
    docs: TextTable
    order: Array
    """Of every document of the collection the rank of its id, which decides between equal
    scores."""
    rows: Array
    """Of the pool's documents, ascending."""
    leaves_itself_out: bool
    """Whether a document with the query's id is no candidate of it."""
    device: str

    @classmethod
    def of(
        cls,
        validation: Validation,
        artifacts: Mapping[str, Artifact],
        pool: SelectionPool,
        leaves_itself_out: bool,
        device: str,
    ) -> PoolValidation:
        """Draw the pool.

        Args:
            artifacts: by the names of the `Reranking`'s fields.
        """
        docs = TextTable(artifacts["collection"].local() / DOCS_FILE)
        judged = docs.rows_of(validation.qrels["doc_id"])
        listed = np.array([row for rows in validation.doc_rows for row in rows], dtype=np.int64)
        rows = drawn(len(docs), np.concatenate([listed, judged[judged >= 0]]), pool)
        return cls(validation, docs, docs.places(), rows, leaves_itself_out, device)

    def run(
        self, model: nn.Module, scorer: Callable[[nn.Module], VectorPairScorer]
    ) -> dict[str, float]:
        """Means of the measures; workers share the texts and all get the same values."""
        model.eval()
        made = scorer(model)
        queries_QH = self._queries(made)
        own = self._found(made, queries_QH)
        model.train()
        merged = self._merged(gathered(own))
        ids = self.validation.candidates.column("query_id").to_pylist()
        run = pa.Table.from_pylist(
            [self._row(query, *found) for query, found in zip(ids, merged, strict=True)],
            schema=RUN,
        )
        chosen = self.validation
        values = evaluate(run, chosen.qrels, chosen.measures, chosen.positive_relevance)
        return means(values)

    def _queries(self, made: VectorPairScorer) -> Array:
        """[Q, H] of all queries; every worker encodes its share."""
        rank, world = rank_and_world()
        tokens, rows = self.validation.query_tokens, self.validation.query_rows
        own = [tokens[row] for row in rows[rank::world]]
        parts = gathered(_finite(made.queries(own)) if own else None)
        known = [part for part in parts if part is not None]
        queries_QH = np.empty((len(rows), known[0].shape[1]), np.float32)
        for start, part in enumerate(known):
            queries_QH[start::world] = part
        return queries_QH

    def _found(self, made: VectorPairScorer, queries_QH: Array) -> Found:
        """The best of this worker's share of the pool, as rows of the collection."""
        rank, world = rank_and_world()
        rows = self.rows[rank::world]
        if not len(rows):
            nothing = (np.empty(0, np.int64), np.empty(0, np.float32))
            return [nothing] * len(queries_QH)
        docs_DH = _finite(made.documents([self.validation.doc_tokens[row] for row in rows]))
        search = ExactSearch(Vectors.of(docs_DH), self.order[rows], self.device)
        found: Found = []
        for start in range(0, len(queries_QH), AT_A_TIME):
            found += search(queries_QH[start : start + AT_A_TIME], DEPTH + 1)
        return [(rows[places], scores) for places, scores in found]

    def _merged(self, shares: Sequence[Found]) -> Found:
        """The best of all workers' shares, query by query."""
        merged: Found = []
        for of_query in zip(*shares, strict=True):
            rows, scores = (np.concatenate(column) for column in zip(*of_query, strict=True))
            best = np.lexsort((self.order[rows], -scores))[: DEPTH + 1]
            merged.append((rows[best], scores[best]))
        return merged

    def _row(self, query: str, rows: Array, scores: Array) -> dict[str, Any]:
        listed = zip(self.docs.ids_at(rows).to_pylist(), scores.tolist(), strict=True)
        kept = [(d, s) for d, s in listed if not (self.leaves_itself_out and d == query)][:DEPTH]
        return {"query_id": query, "doc_ids": [d for d, _ in kept], "scores": [s for _, s in kept]}


def drawn(documents: int, named: Array, pool: SelectionPool) -> Array:
    """Rows of the pool, ascending, each once.

    Args:
        documents: of the whole collection.
        named: rows that are in the pool in any case.
    """
    named = np.unique(named)
    others = np.setdiff1d(np.arange(documents), named, assume_unique=True)
    count = min(pool.documents, len(others))
    further = np.random.default_rng(pool.seed).choice(others, count, replace=False)
    return np.sort(np.concatenate([named, further]))


def _finite(vectors: Array) -> Array:
    if not np.isfinite(vectors).all():
        raise FloatingPointError(
            "validation: vectors have NaN or infinite numbers: lower lr, raise warmup, or use "
            "precision=fp32; the last checkpoint is unharmed"
        )
    return vectors
