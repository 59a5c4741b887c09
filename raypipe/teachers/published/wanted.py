"""The (query, document) pairs that are wanted from a file, their values, and the teacher table.

P wanted pairs, numbered list by list in the order of the query set: a pair's place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.storage.artifacts import Artifact
from raypipe.tables.text_table import TextTable

CHUNK = 8192
"""Lists written at once."""
DIFFERENT = 1e-3
"""Scores of one document for one query that differ by more are reported as averaged."""


class Wanted:
    """Every document of every list, found by ids; 24 bytes per pair."""

    def __init__(self, inputs: Mapping[str, Artifact], depth: int) -> None:
        self._queries = TextTable(inputs["queries"].local() / QUERIES_FILE)
        self._docs = TextTable(inputs["collection"].local() / DOCS_FILE)
        self.query_ids: pa.Array = self._queries.ids_at(np.arange(len(self._queries)))
        rows_P, self._doc_P = listed_pairs(inputs, depth, self._queries, self._docs)
        self.ends: Array = np.searchsorted(rows_P, np.arange(len(self._queries) + 1))
        """First place of every query, int64 of length queries + 1."""
        keys_P = self._keys(rows_P, self._doc_P)
        self._order = np.argsort(keys_P)
        self._sorted_keys = keys_P[self._order]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def query_rows(self, query_ids: pa.Array) -> Array:
        """Row in the query set, -1 for other queries."""
        return self._queries.rows_of(query_ids)

    def places(self, query_rows: Array, doc_ids: pa.Array) -> Array:
        """Place of each pair, -1 where the document is not wanted for the query.

        Args:
            query_rows: at least 0 each.
        """
        doc_rows = self._docs.rows_of(doc_ids)
        if not len(self):
            return np.full(len(doc_rows), -1)
        keys = self._keys(query_rows, doc_rows)
        at = np.minimum(np.searchsorted(self._sorted_keys, keys), len(self) - 1)
        return np.where((doc_rows >= 0) & (self._sorted_keys[at] == keys), self._order[at], -1)

    def ids_at(self, places: Array) -> pa.Array:
        """Document ids of some places."""
        return self._docs.ids_at(self._doc_P[places])

    def _keys(self, query_rows: Array, doc_rows: Array) -> Array:
        return query_rows * len(self._docs) + doc_rows


class Means:
    """The mean of whatever is said of each of n places, in one pass."""

    def __init__(self, n: int) -> None:
        self._count = np.zeros(n, np.int64)
        self._total = np.zeros(n)
        self._low, self._high = np.full(n, np.inf), np.full(n, -np.inf)

    def add(self, places: Array, values: Array) -> None:
        """Values at places of [0, n), any number of them at one place."""
        if not len(places):
            return
        order = np.argsort(places, kind="stable")
        places, values = places[order], values[order]
        starts = np.flatnonzero(np.append(True, places[1:] != places[:-1]))
        at = places[starts]
        self._count[at] += np.diff(np.append(starts, len(places)))
        self._total[at] += np.add.reduceat(values, starts)
        self._low[at] = np.minimum(self._low[at], np.minimum.reduceat(values, starts))
        self._high[at] = np.maximum(self._high[at], np.maximum.reduceat(values, starts))

    def values(self) -> Array:
        """float64 of length n, NaN where nothing was said; equal values keep every bit."""
        out = np.full(len(self._count), np.nan)
        said = self._count > 0
        means = self._total[said] / self._count[said]
        out[said] = np.clip(means, self._low[said], self._high[said])
        return out

    def averaged(self) -> int:
        """Places whose values differ by more than DIFFERENT."""
        return int((self._high - self._low > DIFFERENT).sum())


class Kept:
    """The places that have a value, as lists: where each query's begin, and in whole parts."""

    def __init__(self, wanted: Wanted, values_P: Array) -> None:
        self.wanted, self.values_P = wanted, values_P
        self.before_P = np.cumsum(np.append(0, ~np.isnan(values_P)))
        """Places with a value before each place, int64 of length P + 1."""
        self.ends: Array = self.before_P[wanted.ends]

    def counts(self) -> dict[str, int]:
        """What the file does not say."""
        return {
            "documents_without_value": int(np.isnan(self.values_P).sum()),
            "queries_without_values": int((np.diff(self.ends) == 0).sum()),
        }

    def parts(self) -> Iterator[tuple[slice, list[pa.Array]]]:
        """(queries, columns of records.TEACHER) of CHUNK queries at a time."""
        for queries in spans(len(self.wanted.query_ids)):
            first, last = self.wanted.ends[queries.start], self.wanted.ends[queries.stop]
            places = first + np.flatnonzero(~np.isnan(self.values_P[first:last]))
            yield (
                queries,
                [
                    self.wanted.query_ids[queries],
                    as_lists(self.ends, queries, self.wanted.ids_at(places)),
                    as_lists(self.ends, queries, pa.array(self.values_P[places])),
                ],
            )


def spans(n: int) -> Iterator[slice]:
    """Consecutive slices of CHUNK rows; one empty slice if there is no row."""
    for start in range(0, max(n, 1), CHUNK):
        yield slice(start, min(start + CHUNK, n))


def as_lists(ends: Array, queries: slice, flat: pa.Array) -> pa.ListArray:
    """One list per query of the slice; `flat` holds what lies between their ends."""
    offsets = ends[queries.start : queries.stop + 1] - ends[queries.start]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


Array = np.ndarray[Any, Any]


def listed_pairs(
    inputs: Mapping[str, Artifact], depth: int, queries: TextTable, docs: TextTable
) -> tuple[Array, Array]:
    """(rows of `queries`, rows of `docs`), int64: per query, in the order of the query set, the
    first `depth` candidates, then what `extra` adds; no pair twice."""
    found = [*_artifact_pairs(inputs["candidates"], depth, queries, docs)] if depth else []
    if "extra" in inputs:
        found += _artifact_pairs(inputs["extra"], None, queries, docs)
    empty = np.empty(0, np.int64)
    rows, doc_rows = (
        np.concatenate([empty, *column])
        for column in (zip(*found, strict=True) if found else ((), ()))
    )
    _, first = np.unique(rows * max(len(docs), 1) + doc_rows, return_index=True)
    first = first[np.lexsort((first, rows[first]))]
    return rows[first], doc_rows[first]


def _artifact_pairs(
    artifact: Artifact, depth: int | None, queries: TextTable, docs: TextTable
) -> Iterator[tuple[Array, Array]]:
    """Known pairs of a table with query_id and doc_ids, in its order."""
    folder = artifact.local()
    for name in artifact.files:
        if not name.endswith(".parquet"):
            continue
        for batch in pq.ParquetFile(folder / name).iter_batches(columns=["query_id", "doc_ids"]):
            lists = batch["doc_ids"]
            lists = lists if depth is None else pc.list_slice(lists, 0, depth)
            lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
            rows = np.repeat(queries.rows_of(batch["query_id"]), lengths)
            doc_rows = docs.rows_of(lists.flatten())
            known = (rows >= 0) & (doc_rows >= 0)
            yield rows[known], doc_rows[known]
