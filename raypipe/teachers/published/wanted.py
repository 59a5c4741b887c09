"""The pairs of query and document that a file is read for, and the teacher table of their values.

The documents of all lists are numbered: list after list in the order of the query set, and within
a list by rank. A pair's number is its index in an array of length P, the number of all pairs.
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
"""A pair whose values differ by more is reported as averaged."""

Array = np.ndarray[Any, Any]


class WantedPairs:
    """Finds a pair by its two ids. Takes 24 bytes of memory per pair.

    Args:
        inputs: artifacts of `Lists.named`.
        depth: candidates of every list.
    """

    def __init__(self, inputs: Mapping[str, Artifact], depth: int) -> None:
        self._queries = TextTable(inputs["queries"].local() / QUERIES_FILE)
        self._docs = TextTable(inputs["collection"].local() / DOCS_FILE)
        self.query_ids: pa.Array = self._queries.ids_at(np.arange(len(self._queries)))
        query_rows_P, self._doc_rows_P = listed_pairs(inputs, depth, self._queries, self._docs)
        self.bounds: Array = np.searchsorted(query_rows_P, np.arange(len(self._queries) + 1))
        """The pairs of the query in row r are numbered from bounds[r] to bounds[r + 1] - 1."""
        keys_P = self._keys(query_rows_P, self._doc_rows_P)
        self._by_key = np.argsort(keys_P)
        self._sorted_keys = keys_P[self._by_key]

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def query_rows(self, query_ids: pa.Array) -> Array:
        """The row of each query in the query set, -1 for other queries."""
        return self._queries.rows_of(query_ids)

    def numbers(self, query_rows: Array, doc_ids: pa.Array) -> Array:
        """The number of each pair, -1 where the document is not in the query's list.

        Args:
            query_rows: rows of the query set, none of them -1.
        """
        doc_rows = self._docs.rows_of(doc_ids)
        if not len(self):
            return np.full(len(doc_rows), -1)
        keys = self._keys(query_rows, doc_rows)
        at = np.minimum(np.searchsorted(self._sorted_keys, keys), len(self) - 1)
        return np.where((doc_rows >= 0) & (self._sorted_keys[at] == keys), self._by_key[at], -1)

    def doc_ids(self, numbers: Array) -> pa.Array:
        """The document ids of the pairs with these numbers."""
        return self._docs.ids_at(self._doc_rows_P[numbers])

    def _keys(self, query_rows: Array, doc_rows: Array) -> Array:
        return query_rows * len(self._docs) + doc_rows


class PairMeans:
    """Averages the values that a file has for each of n pairs, block by block in one pass."""

    def __init__(self, n: int) -> None:
        self._count = np.zeros(n, np.int64)
        self._total = np.zeros(n)
        self._low, self._high = np.full(n, np.inf), np.full(n, -np.inf)

    def add(self, numbers: Array, values: Array) -> None:
        """Count one value for each of the numbered pairs; a number may come more than once."""
        if not len(numbers):
            return
        order = np.argsort(numbers, kind="stable")
        numbers, values = numbers[order], values[order]
        starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1]))
        distinct = numbers[starts]
        self._count[distinct] += np.diff(np.append(starts, len(numbers)))
        self._total[distinct] += np.add.reduceat(values, starts)
        lows, highs = (bound.reduceat(values, starts) for bound in (np.minimum, np.maximum))
        self._low[distinct] = np.minimum(self._low[distinct], lows)
        self._high[distinct] = np.maximum(self._high[distinct], highs)

    def values(self) -> Array:
        """The mean of every pair, float64; NaN without a value.

        Equal values keep every bit: the sum of three equal floats over 3 may be another float.
        """
        means = np.full(len(self._count), np.nan)
        known = self._count > 0
        quotients = self._total[known] / self._count[known]
        means[known] = np.clip(quotients, self._low[known], self._high[known])
        return means

    def averaged(self) -> int:
        """How many pairs have values that differ by more than DIFFERENT."""
        return int((self._high - self._low > DIFFERENT).sum())


class ValuedPairs:
    """The pairs that have a value, as one list per query: what a teacher's table holds.

    Args:
        values_P: the value of every wanted pair, NaN without one.
    """

    def __init__(self, wanted: WantedPairs, values_P: Array) -> None:
        self.wanted, self.values_P = wanted, values_P
        self.valued_before_P = np.cumsum(np.append(0, ~np.isnan(values_P)))
        """How many pairs with smaller numbers have a value; one entry more than pairs."""
        self.bounds: Array = self.valued_before_P[wanted.bounds]
        """As `WantedPairs.bounds`, where only pairs with a value are numbered."""

    def counts(self) -> dict[str, int]:
        """Of the documents and queries that the file has no value for."""
        return {
            "documents_without_value": int(np.isnan(self.values_P).sum()),
            "queries_without_values": int((np.diff(self.bounds) == 0).sum()),
        }

    def parts(self) -> Iterator[tuple[slice, list[pa.Array]]]:
        """(rows of the query set, their columns of records.TEACHER), CHUNK queries at a time."""
        for queries in spans(len(self.wanted.query_ids)):
            first, last = self.wanted.bounds[queries.start], self.wanted.bounds[queries.stop]
            numbers = first + np.flatnonzero(~np.isnan(self.values_P[first:last]))
            yield (
                queries,
                [
                    self.wanted.query_ids[queries],
                    as_lists(self.bounds, queries, self.wanted.doc_ids(numbers)),
                    as_lists(self.bounds, queries, pa.array(self.values_P[numbers])),
                ],
            )


def spans(n: int) -> Iterator[slice]:
    """Consecutive slices of CHUNK rows; one empty slice if there is no row."""
    for start in range(0, max(n, 1), CHUNK):
        yield slice(start, min(start + CHUNK, n))


def as_lists(bounds: Array, queries: slice, flat: pa.Array) -> pa.ListArray:
    """One list per query of the slice.

    Args:
        bounds: where the entries of every query of the set begin and end.
        flat: the entries of the slice's queries.
    """
    offsets = bounds[queries.start : queries.stop + 1] - bounds[queries.start]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def listed_pairs(
    inputs: Mapping[str, Artifact], depth: int, queries: TextTable, docs: TextTable
) -> tuple[Array, Array]:
    """(rows of `queries`, rows of `docs`), int64, of every pair; no pair twice.

    Queries are in the order of the query set. Each has its first `depth` candidates, then the
    documents that `extra` adds.
    """
    blocks = [*_artifact_pairs(inputs["candidates"], depth, queries, docs)] if depth else []
    if "extra" in inputs:
        blocks += _artifact_pairs(inputs["extra"], None, queries, docs)
    empty = np.empty(0, np.int64)
    query_rows, doc_rows = (
        np.concatenate([empty, *column])
        for column in (zip(*blocks, strict=True) if blocks else ((), ()))
    )
    _, first = np.unique(query_rows * max(len(docs), 1) + doc_rows, return_index=True)
    first = first[np.lexsort((first, query_rows[first]))]
    return query_rows[first], doc_rows[first]


def _artifact_pairs(
    artifact: Artifact, depth: int | None, queries: TextTable, docs: TextTable
) -> Iterator[tuple[Array, Array]]:
    """(rows of `queries`, rows of `docs`) of the known pairs of a table, in its order.

    Args:
        artifact: rows with query_id and doc_ids.
        depth: documents that are read of every row; None reads all.
    """
    folder = artifact.local()
    for name in artifact.files:
        if not name.endswith(".parquet"):
            continue
        for batch in pq.ParquetFile(folder / name).iter_batches(columns=["query_id", "doc_ids"]):
            lists = batch["doc_ids"]
            lists = lists if depth is None else pc.list_slice(lists, 0, depth)
            lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
            query_rows = np.repeat(queries.rows_of(batch["query_id"]), lengths)
            doc_rows = docs.rows_of(lists.flatten())
            known = (query_rows >= 0) & (doc_rows >= 0)
            yield query_rows[known], doc_rows[known]
