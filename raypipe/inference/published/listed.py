"""The lists of a teacher as two flat columns: what `ListReader` gives, for files of millions of
groups that must not become Python objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe.artifacts import Artifact
from raypipe.data.collection import DocTable

Array = np.ndarray[Any, Any]


def listed_pairs(
    inputs: Mapping[str, Artifact], depth: int, queries: DocTable, docs: DocTable
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
    artifact: Artifact, depth: int | None, queries: DocTable, docs: DocTable
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
