"""Triples of indices to groups, in arrays: no Python object per triple, whatever their number.

Triples are int64 arrays [3, n]: query, positive and negative index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.records import NEGATIVES
from raypipe.tables.flat import positions
from raypipe.tables.text_table import TextTable

PART = 100_000
"""Groups per part."""

Array = np.ndarray[Any, Any]


class Judged:
    """Judged relevance by (query index, document index)."""

    def __init__(self, qrels: pa.Table, query_set: TextTable, collection: TextTable) -> None:
        self._docs = len(collection)
        docs = collection.rows_of(qrels["doc_id"])
        keys = query_set.rows_of(qrels["query_id"]) * self._docs + docs
        order = np.argsort(keys)
        order = order[docs[order] >= 0]  # judged, but without text
        self._keys = keys[order]
        self._relevance = qrels["relevance"].to_numpy()[order]

    def of(self, queries: Array, docs: Array) -> Array:
        """Relevance, 0 where there is no judgement."""
        if not len(self._keys):
            return np.zeros(len(docs), np.int32)
        keys = queries * self._docs + docs
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._relevance[at], 0)


@dataclass(frozen=True)
class IndexGroups:
    """Some groups, still as indices."""

    queries: Array
    """Query index per group."""
    sizes: Array
    """Documents per group."""
    docs: Array
    """Document indices of all groups, one after the other, positives first."""

    def __len__(self) -> int:
        return len(self.queries)

    def cut(self, start: int, stop: int) -> IndexGroups:
        ends = np.concatenate([[0], np.cumsum(self.sizes)])
        docs = self.docs[ends[start] : ends[min(stop, len(self))]]
        return IndexGroups(self.queries[start:stop], self.sizes[start:stop], docs)

    def table(
        self,
        judged: Judged,
        query_set: TextTable,
        collection: TextTable,
        source: str,
        positive_relevance: int,
    ) -> pa.Table:
        """NEGATIVES with rank 0; the positive has its judged relevance, at least what counts as
        positive."""
        offsets = np.concatenate([[0], np.cumsum(self.sizes)])
        relevance = np.zeros(len(self.docs), np.int32)
        positives = offsets[:-1]
        relevance[positives] = np.maximum(
            positive_relevance, judged.of(self.queries, self.docs[positives])
        )
        values = (
            collection.ids_at(self.docs),
            pa.array(relevance),
            pa.array(np.zeros_like(relevance)),
            pa.repeat(pa.scalar(source, pa.string()), len(self.docs)),
        )
        lists = [pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), v) for v in values]
        return pa.table([query_set.ids_at(self.queries), *lists], schema=NEGATIVES)


def group_parts(
    triples: Iterator[Array],
    judged: Judged,
    per_group: int,
    limit: int | None,
    counts: Counter[str],
) -> Iterator[IndexGroups]:
    """The first `limit` groups, `PART` at a time; adds what is dropped to the counts."""
    runs = _whole_runs(_fitting(triples, judged, counts))
    return _parts(_first(_groups(runs, per_group, counts), limit))


def _fitting(triples: Iterator[Array], judged: Judged, counts: Counter[str]) -> Iterator[Array]:
    for part in triples:
        query, positive, negative = part
        relevant = judged.of(query, negative) > 0
        repeated = ~relevant & (negative == positive)
        counts["negatives_judged_relevant"] += int(relevant.sum())
        counts["repeated_documents"] += int(repeated.sum())
        yield part[:, ~(relevant | repeated)]


def _whole_runs(triples: Iterator[Array]) -> Iterator[Array]:
    """Cut anew, so that no part ends between two triples of one query and positive."""
    held = np.empty((3, 0), np.int64)
    for part in triples:
        held = np.concatenate([held, part], axis=1)
        starts = _run_starts(held)
        if len(starts) > 1:
            yield held[:, : starts[-1]]
            held = held[:, starts[-1] :]
    if held.size:
        yield held


def _run_starts(triples: Array) -> Array:
    changes = (triples[:2, 1:] != triples[:2, :-1]).any(axis=0)
    return np.flatnonzero(np.concatenate([[triples.size > 0], changes]))


def _groups(runs: Iterator[Array], per_group: int, counts: Counter[str]) -> Iterator[IndexGroups]:
    for part in runs:
        if per_group > 1:
            kept = _unrepeated(part)
            counts["repeated_documents"] += part.shape[1] - kept.shape[1]
            part = kept
        query, positive, negative = part
        place = positions(np.append(_run_starts(part), len(query)))
        starts = np.flatnonzero(place % per_group == 0)
        sizes = np.diff(np.append(starts, len(query))) + 1
        yield IndexGroups(query[starts], sizes, np.insert(negative, starts, positive[starts]))


def _unrepeated(triples: Array) -> Array:
    """The first of equal triples in each run."""
    starts = _run_starts(triples)
    run = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, triples.shape[1])))
    pairs = run * (triples[2].max() + 1) + triples[2]
    return triples[:, np.sort(np.unique(pairs, return_index=True)[1])]


def _first(groups: Iterator[IndexGroups], limit: int | None) -> Iterator[IndexGroups]:
    for some in groups:
        if limit is not None and len(some) >= limit:
            yield some.cut(0, limit)
            return
        yield some
        limit = None if limit is None else limit - len(some)


def _parts(groups: Iterator[IndexGroups]) -> Iterator[IndexGroups]:
    held = IndexGroups(*(np.empty(0, np.int64) for _ in range(3)))
    for more in groups:
        both = [(getattr(held, f), getattr(more, f)) for f in ("queries", "sizes", "docs")]
        held = IndexGroups(*map(np.concatenate, both))
        while len(held) >= PART:
            yield held.cut(0, PART)
            held = held.cut(PART, len(held))
    if len(held):
        yield held
