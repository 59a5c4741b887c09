"""Exact search with bm25s in an index that is mapped into memory, shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.candidates.bm25.terms import Array
from raypipe.candidates.bm25.vocabulary import IDS_ORDER, VOCABULARY_FILE, Bm25Options

SPARE = 32
"""Documents fetched beyond the depth, so that few queries are cut inside a tie."""
NUMBA_WORK = 1_500_000_000
"""Queries times documents from which numba pays: compiling takes 5.7 s in each process and saves
3.4 ns per query and document (2.0 ms or .67 ms per query over 400,000 documents)."""

Found = tuple[Array, Array]
"""Document positions, int64, and their scores, float32, best first."""


class Search:
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
        for path in sorted(folder.glob("part-*.arrow")):
            self._shards.append(_Shard(path, first, order))
            first += self._shards[-1].docs
        assert first == len(order), f"{folder}: {first} documents in shards, {len(order)} in all"
        self._docs, self._work = first, 0

    def __call__(self, texts: list[str], depth: int) -> list[Found]:
        """(document positions, float32 scores) per query, best first."""
        return self.ranked(self._options.tokenize(texts), depth)

    def ranked(self, terms: Sequence[Sequence[str]], depth: int) -> list[Found]:
        """The same for queries given by their terms; a term counts as often as a query has it."""
        ids = self._term_ids(terms)
        known = [[ids[term] for term in one if term in ids] for one in terms]
        out: list[Found] = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(known)
        asked = [number for number, one in enumerate(known) if one]
        if not asked:
            return out
        queries = [known[number] for number in asked]
        absent = [self._absent[one].sum() for one in queries]
        self._work += len(queries) * self._docs
        numba = self._work >= NUMBA_WORK
        parts = [shard.best(queries, absent, depth, numba) for shard in self._shards]
        for number, *found in zip(asked, *parts, strict=True):
            out[number] = self._merged(found, depth)
        return out

    def _term_ids(self, terms: Sequence[Sequence[str]]) -> dict[str, int]:
        """The known ones of the terms. The vocabulary is scanned, not made a dict per actor."""
        asked = pa.array(sorted({term for one in terms for term in one}), pa.string())
        found = pc.index_in(self._words, value_set=asked)
        rows = pc.indices_nonzero(pc.is_valid(found))
        names = asked.take(found.take(rows)).to_pylist()
        return dict(zip(names, rows.to_pylist(), strict=True))

    def _merged(self, found: list[Found], depth: int) -> Found:
        if len(found) == 1:
            return found[0]
        positions, scores = (np.concatenate(column) for column in zip(*found, strict=True))
        return self._shards[0].ordered(positions, scores, depth)


class _Shard:
    """Some neighbouring documents, scored by bm25s out of the memory map.

    Its scores lack what absent terms add: bm25s' two backends would add that up differently.
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
        """The first `depth` of each query given by term ids, at least one."""
        if not numba:
            return [self._exact(*one, depth) for one in zip(queries, absent, strict=True)]
        fetch = min(depth + SPARE, self.docs)
        rows, scores = self._index.retrieve(queries, k=fetch, n_threads=0, show_progress=False)
        out = []
        for number, (query, extra) in enumerate(zip(queries, absent, strict=True)):
            row, score = rows[number].astype(np.int64), scores[number]
            total = score + extra
            if depth < fetch < self.docs and score[depth - 1] > 0 and total[-1] >= total[depth - 1]:
                out.append(self._exact(query, extra, depth))  # not all that are tied were fetched
                continue
            keep = score > 0
            out.append(self.ordered(row[keep] + self._first, total[keep], depth))
        return out

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
