"""Exact search with bm25s in an index that is mapped into memory, shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.candidates.bm25.terms import Array
from raypipe.candidates.bm25.vocabulary import IDS_ORDER, VOCABULARY_FILE, Bm25Options
from raypipe.storage.parts import part_paths

SPARE = 32
"""Documents fetched beyond the depth, so that few queries are cut inside a tie."""
NUMBA_WORK = 1_500_000_000
"""Queries times documents from which numba pays: compiling takes 5.7 s in each process and saves
3.4 ns per query and document (2.0 ms or .67 ms per query over 400,000 documents)."""

Found = tuple[Array, Array]
"""Document positions, int64, and their scores, float32, best first."""


class Bm25Search:
    """Exact top-k of a saved index: ties are broken by document id, score 0 is not a result.

    In bm25l and bm25+ a document without any of the terms has a score too; it is no result either.
    """

    def __init__(self, folder: Path, options: Bm25Options) -> None:
        self._options = options
        words = pa.ipc.open_file(pa.memory_map(str(folder / VOCABULARY_FILE))).get_batch(0)
        self._words, self._absent = words.column("term"), words.column("absent").to_numpy()
        order: Array = np.load(folder / IDS_ORDER, mmap_mode="r")
        self._shards: list[_Shard] = []
        first = 0
        for path in part_paths(folder, "arrow"):
            self._shards.append(_Shard(path, first, order))
            first += self._shards[-1].docs
        assert first == len(order), f"{folder}: {first} documents in shards, {len(order)} in all"
        self._docs, self._work = first, 0

    def __call__(self, texts: list[str], depth: int) -> list[Found]:
        """(document positions, float32 scores) per query, best first."""
        return self.ranked(self._options.tokenize(texts), depth)

    def ranked(self, terms: Sequence[Sequence[str]], depth: int) -> list[Found]:
        """As a call, for queries that are lists of terms; a repeated term counts each time."""
        ids = self._term_ids(terms)
        known = [[ids[term] for term in query if term in ids] for query in terms]
        results: list[Found] = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(known)
        with_terms = [number for number, query in enumerate(known) if query]
        if not with_terms:
            return results
        queries = [known[number] for number in with_terms]
        absent = [self._absent[query].sum() for query in queries]
        self._work += len(queries) * self._docs
        numba = self._work >= NUMBA_WORK
        parts = [shard.best(queries, absent, depth, numba) for shard in self._shards]
        for number, *by_shard in zip(with_terms, *parts, strict=True):
            results[number] = self._merged(by_shard, depth)
        return results

    def _term_ids(self, terms: Sequence[Sequence[str]]) -> dict[str, int]:
        """The id of every term that the vocabulary has.

        The vocabulary is scanned: a dictionary of it would take its memory in every actor.
        """
        wanted = pa.array(sorted({term for query in terms for term in query}), pa.string())
        position = pc.index_in(self._words, value_set=wanted)
        rows = pc.indices_nonzero(pc.is_valid(position))
        names = wanted.take(position.take(rows)).to_pylist()
        return dict(zip(names, rows.to_pylist(), strict=True))

    def _merged(self, by_shard: list[Found], depth: int) -> Found:
        if len(by_shard) == 1:
            return by_shard[0]
        positions, scores = (np.concatenate(column) for column in zip(*by_shard, strict=True))
        return self._shards[0].ordered(positions, scores, depth)


class _Shard:
    """Some neighbouring documents, scored by bm25s out of the memory map.

    bm25s' scores leave out what absent terms add, since its two backends sum that differently.
    """

    def __init__(self, path: Path, first: int, order: Array) -> None:
        import bm25s

        row = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        starts, rows, scores = (
            row.column(name).values.to_numpy() for name in ("starts", "rows", "scores")
        )
        self.docs, self._first, self._order = row.column("docs")[0].as_py(), first, order
        self._index = bm25s.BM25(backend="numba", auto_compile=False)
        self._index.scores = {
            "data": scores,
            "indices": rows,
            "indptr": starts,
            "num_docs": self.docs,
        }
        self._index.nonoccurrence_array = None
        self._index.unique_token_ids_set = range(len(starts) - 1)

    def best(
        self, queries: list[list[int]], absent: list[np.float32], depth: int, numba: bool
    ) -> list[Found]:
        """The first `depth` of each query, which is a list of at least one term id."""
        if not numba:
            return [self._exact(*query, depth) for query in zip(queries, absent, strict=True)]
        fetch = min(depth + SPARE, self.docs)
        rows, scores = self._index.retrieve(queries, k=fetch, n_threads=0, show_progress=False)
        results = []
        for number, (query, extra) in enumerate(zip(queries, absent, strict=True)):
            row, score = rows[number].astype(np.int64), scores[number]
            total = score + extra
            if depth < fetch < self.docs and score[depth - 1] > 0 and total[-1] >= total[depth - 1]:
                results.append(self._exact(query, extra, depth))  # not every tie was fetched
                continue
            keep = score > 0
            results.append(self.ordered(row[keep] + self._first, total[keep], depth))
        return results

    def _exact(self, query: list[int], extra: np.float32, depth: int) -> Found:
        """One query, by the scores of all documents: no tie is missed however many there are."""
        scores = self._index.get_scores_from_ids(query)
        rows = np.flatnonzero(scores > 0)
        total = scores[rows] + extra
        if len(rows) > depth:
            keep = total >= np.partition(total, -depth)[-depth]
            rows, total = rows[keep], total[keep]
        return self.ordered(rows + self._first, total, depth)

    def ordered(self, positions: Array, scores: Array, depth: int) -> Found:
        """The first `depth` by score, descending, and document id."""
        best = np.lexsort((self._order[positions], -scores))[:depth]
        return positions[best], scores[best]
