"""Triples of indices become groups of indices, in arrays: no triple is a Python object.

Triples are int64 arrays [3, n]: query, positive and negative index. A run is a stretch of triples
of one query and positive.
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
"""Groups per part-*.parquet file."""

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
        nearest = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[nearest] == keys, self._relevance[nearest], 0)


@dataclass(frozen=True)
class IndexGroups:
    """Consecutive groups, as indices."""

    queries: Array
    """[groups] the query's index."""
    sizes: Array
    """[groups] the number of documents."""
    docs: Array
    """[sum of sizes] document indices, group after group, in each the positive first."""

    def __len__(self) -> int:
        return len(self.queries)

    def cut(self, start: int, stop: int) -> IndexGroups:
        """Groups number `start` to `stop`."""
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
        """The groups as NEGATIVES with rank 0. A positive has its judged relevance, but at least
        `positive_relevance`."""
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
    """The first `limit` groups, `PART` at a time; adds dropped triples to the counts."""
    runs = _whole_runs(_fitting(triples, judged, counts))
    return _parts(_first(_groups(runs, per_group, counts), limit))


def _fitting(triples: Iterator[Array], judged: Judged, counts: Counter[str]) -> Iterator[Array]:
    """Triples whose negative is neither judged relevant nor the positive."""
    for part in triples:
        query, positive, negative = part
        relevant = judged.of(query, negative) > 0
        repeated = ~relevant & (negative == positive)
        counts["negatives_judged_relevant"] += int(relevant.sum())
        counts["repeated_documents"] += int(repeated.sum())
        yield part[:, ~(relevant | repeated)]


def _whole_runs(triples: Iterator[Array]) -> Iterator[Array]:
    """The triples in parts that hold whole runs."""
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
    """The position of each run's first triple."""
    changes = (triples[:2, 1:] != triples[:2, :-1]).any(axis=0)
    return np.flatnonzero(np.concatenate([[triples.size > 0], changes]))


def _groups(runs: Iterator[Array], per_group: int, counts: Counter[str]) -> Iterator[IndexGroups]:
    """Groups of up to `per_group` consecutive triples of one run."""
    for part in runs:
        if per_group > 1:
            kept = _unrepeated(part)
            counts["repeated_documents"] += part.shape[1] - kept.shape[1]
            part = kept
        query, positive, negative = part
        position_in_run = positions(np.append(_run_starts(part), len(query)))
        starts = np.flatnonzero(position_in_run % per_group == 0)
        sizes = np.diff(np.append(starts, len(query))) + 1
        yield IndexGroups(query[starts], sizes, np.insert(negative, starts, positive[starts]))


def _unrepeated(triples: Array) -> Array:
    """The triples without those that repeat an earlier one of their run."""
    starts = _run_starts(triples)
    run = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, triples.shape[1])))
    pairs = run * (triples[2].max() + 1) + triples[2]
    return triples[:, np.sort(np.unique(pairs, return_index=True)[1])]


def _first(parts: Iterator[IndexGroups], limit: int | None) -> Iterator[IndexGroups]:
    """The first `limit` groups; None takes all."""
    for part in parts:
        if limit is not None and len(part) >= limit:
            yield part.cut(0, limit)
            return
        yield part
        limit = None if limit is None else limit - len(part)


def _parts(groups: Iterator[IndexGroups]) -> Iterator[IndexGroups]:
    """The same groups, `PART` at a time."""
    held = IndexGroups(*(np.empty(0, np.int64) for _ in range(3)))
    for more in groups:
        both = [(getattr(held, f), getattr(more, f)) for f in ("queries", "sizes", "docs")]
        held = IndexGroups(*map(np.concatenate, both))
        while len(held) >= PART:
            yield held.cut(0, PART)
            held = held.cut(PART, len(held))
    if len(held):
        yield held
