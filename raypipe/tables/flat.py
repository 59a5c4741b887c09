"""Ranked lists with one row per document: sort them, drop duplicates, cut, nest to CANDIDATES."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.records import CANDIDATES

_NESTED = 8192  # queries nested at a time, so that 32-bit offsets of the ids never overflow
_SETTLED = 1 << 19  # rows sorted and searched for duplicates at a time: hashing needs the caches
FLOAT32_LIMIT = 2.0**128 - 2.0**103
"""From here on a number rounds to infinity in float32."""
Array = np.ndarray[Any, Any]

FLAT = pa.schema(
    [
        ("query", pa.int32()),
        ("doc_id", pa.large_string()),
        ("order", pa.int64()),
        ("score", pa.float32()),
    ]
)
"""One row per listed document. `query` is the reader's number of the query; the document with the
smallest `order` is the best."""


def settle(
    flat: pa.Table, depth: int | None, *, as_listed: bool = False
) -> tuple[pa.Table, int, int]:
    """Rows sorted by query and order; each document's best row, each list's first `depth`.

    Rows of one order stand by score, the highest first; those of one score by doc_id.

    Args:
        flat: FLAT, perhaps with more columns, or with scores of another type.
        depth: rows per query; None keeps all.
        as_listed: leave rows of one order and one score as they stand in `flat`.

    Returns:
        The table, the number of duplicates and the number of rows beyond the depth.
    """
    flat = flat.combine_chunks()
    query = flat["query"].to_numpy()
    if (query[1:] < query[:-1]).any():
        by_query = np.argsort(query, kind="stable")
        flat, query = flat.take(by_query), query[by_query]
    parts, start = [(flat.slice(0, 0), 0, 0)], 0
    while start < len(query):
        last = min(start + _SETTLED, len(query)) - 1
        stop = int(np.searchsorted(query, query[last], side="right"))
        part = flat.slice(start, stop - start).combine_chunks()
        parts.append(_settle(_in_order(part, as_listed), depth))
        start = stop
    tables, duplicates, beyond = zip(*parts, strict=True)
    return pa.concat_tables(tables), sum(duplicates), sum(beyond)


def _settle(table: pa.Table, depth: int | None) -> tuple[pa.Table, int, int]:
    """Each document's first row, each list's first `depth`, of rows in order."""
    query = table["query"].to_numpy().astype(np.int64)
    pairs = query << 32 | array(table, "doc_id").dictionary_encode().indices.to_numpy()
    by_pair = np.sort(pairs)
    duplicates = int((by_pair[1:] == by_pair[:-1]).sum())
    if duplicates:
        table = table.take(np.sort(np.unique(pairs, return_index=True)[1]))
    beyond = 0
    if depth is not None:
        query = table["query"].to_numpy()
        within = np.arange(len(query)) - np.searchsorted(query, query, side="left") < depth
        beyond = int((~within).sum())
        table = table.filter(pa.array(within)) if beyond else table
    return table, duplicates, beyond


def _in_order(table: pa.Table, as_listed: bool) -> pa.Table:
    """Rows sorted as `settle` says. Sorting ids is slow, so rows in order are left as they are:
    most files have theirs in order."""
    query, order = table["query"].to_numpy(), table["order"].to_numpy()
    if ((query[1:] > query[:-1]) | (order[1:] > order[:-1])).all():
        return table
    keys = [("query", "ascending"), ("order", "ascending"), ("score", "descending")]
    if not as_listed:
        keys.append(("doc_id", "ascending"))
    return table.take(pc.sort_indices(table, keys))  # a stable sort


def nest(flat: pa.Table, query_ids: Sequence[str], sources: pa.Array) -> pa.Table:
    """CANDIDATES, one row per query id.

    Args:
        flat: settled; query n belongs to query_ids[n], and some may have no rows.
        sources: one string per row of `flat`.
    """
    bounds = np.searchsorted(flat["query"].to_numpy(), np.arange(len(query_ids) + 1))
    batches = []
    for start in range(0, len(query_ids), _NESTED):
        stop = min(start + _NESTED, len(query_ids))
        part = flat.slice(bounds[start], bounds[stop] - bounds[start]).combine_chunks()
        offsets = bounds[start : stop + 1] - bounds[start]
        values = [
            array(part, "doc_id").cast(pa.string()),
            pa.array(positions(offsets) + 1, pa.int32()),
            array(part, "score").cast(pa.float32()),
            sources.slice(bounds[start], part.num_rows),
        ]
        lists = [pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), v) for v in values]
        ids = pa.array(query_ids[start:stop], pa.string())
        batches.append(pa.table([ids, *lists], schema=CANDIDATES))
    return pa.concat_tables(batches) if batches else CANDIDATES.empty_table()


def positions(offsets: Array) -> Array:
    """0, 1, 2, ... within each list that the offsets (the first is 0) delimit."""
    within: Array = np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))
    return within


def array(table: pa.Table, name: str) -> pa.Array:
    """A column as one array."""
    column = table[name].combine_chunks()
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
