"""BM25 indexes: one vocabulary with weights of the whole collection, and shards of documents.

A shard is what bm25s would hold of the whole collection's index for those documents, bit for bit:
document frequencies, the number of documents and their mean length are always global.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypipe.candidates.bm25.terms import (
    Array,
    Bm25Terms,
    TermCounts,
    TermSlice,
    term_spec,
)
from raypipe.candidates.bm25.vocabulary import (
    VOCABULARY_FILE,
    Bm25Options,
    global_ids,
    mean_length_of,
    model_of,
    write_vocabulary,
)
from raypipe.datasets.steps import Collection
from raypipe.resources import Context
from raypipe.storage.artifacts import Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks, run_once

SHARD = pa.schema(
    [
        ("docs", pa.int64()),
        ("starts", pa.large_list(pa.int64())),
        ("rows", pa.large_list(pa.int32())),
        ("scores", pa.large_list(pa.float32())),
    ]
)
"""One row: a sparse matrix by columns. Of term t, `rows` and `scores` in starts[t]:starts[t + 1]
are documents, counted from the shard's first, and what it adds to their score."""


@dataclass(frozen=True)
class Bm25Index(Step):
    """The vocabulary, by one process, then the shards, in parallel."""

    collection: Collection
    options: Bm25Options

    kind: ClassVar[str] = "bm25_index"
    libraries: ClassVar[tuple[str, ...]] = ("bm25s", "PyStemmer")
    version: ClassVar[int] = 2

    @property
    def name(self) -> str:
        return self.collection.name

    def spec(self) -> Mapping[str, Any]:
        return term_spec(self.options.part(Bm25Options), self.collection)

    def inputs(self) -> Mapping[str, Step]:
        return {
            "collection": self.collection,
            "terms": Bm25Terms(self.collection, self.options),
        }

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        words = run_once(write_vocabulary, attempt, self.options, context=context)
        job = BuildShard(attempt, self.options)
        docs, size = words["docs"], self.options.shard_docs
        built = run_chunks(job, docs, size, attempt, context, model=False, suffix="arrow")
        return {**words, "shards": -(-docs // size), "postings": built["postings"]}


@dataclass(frozen=True)
class BuildShard:
    """The job of `Bm25Index`: a chunk is a shard. The vocabulary is in the attempt already."""

    attempt: Attempt
    options: Bm25Options

    def build(self) -> Work:
        from scipy.sparse import csr_matrix

        source = self.attempt.inputs["terms"]
        terms = TermCounts(source.local())
        mean_length = mean_length_of(source.counts, len(terms))
        with self.attempt.store.fs.open_input_file(f"{self.attempt.base}/{VOCABULARY_FILE}") as f:
            vocabulary = pa.ipc.open_file(f).get_batch(0)

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            parts = list(terms.slices(chunk))
            starts = np.concatenate([[0], np.cumsum(np.concatenate([p.sizes for p in parts]))])
            columns = np.empty(starts[-1], np.int32)
            scores = np.empty(starts[-1], np.float32)
            at = 0
            for part, ids in zip(parts, global_ids(terms, parts, vocabulary), strict=True):
                span = slice(at, at := at + len(part.terms))
                columns[span] = ids[part.terms]
                scores[span] = self._scores(part, columns[span], vocabulary, mean_length)
            shape = (len(chunk), vocabulary.num_rows)
            matrix = csr_matrix((scores, columns, starts), shape=shape).tocsc()
            return _shard(matrix), {"postings": len(scores)}

        return work

    def _scores(
        self, part: TermSlice, ids: Array, vocabulary: pa.RecordBatch, mean_length: np.float64
    ) -> Array:
        """bm25s' `_build_scores_and_indices_for_matrix` for many documents at a time, float64."""
        from bm25s.scoring import _select_tfc_scorer

        model = model_of(self.options)
        frequency = _select_tfc_scorer(self.options.method)(
            tf_array=part.counts.astype(np.float32),
            l_d=np.repeat(part.lengths, part.sizes),
            l_avg=mean_length,
            k1=model.k1,
            b=model.b,
            delta=model.delta,
        )
        idf, absent = (vocabulary.column(name).to_numpy()[ids] for name in ("idf", "absent"))
        scores: Array = idf * frequency - absent
        return scores


def _shard(matrix: Any) -> pa.Table:
    docs, postings = matrix.shape[0], matrix.nnz
    lists = [
        pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), pa.array(values))
        for values in (
            matrix.indptr.astype(np.int64, copy=False),
            matrix.indices.astype(np.int32, copy=False),
            matrix.data,
        )
    ]
    assert len(matrix.data) == postings, "no document names a term twice"
    return pa.table([pa.array([docs], pa.int64()), *lists], schema=SHARD)
