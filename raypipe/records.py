"""One pyarrow schema per kind of artifact.

A row's number in `docs` and `queries` is its index. Tokens and training groups hold indices; ids
stand in candidates, negatives, teacher values, runs and metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

_IDS = pa.list_(pa.string())

DOCS = pa.schema([("doc_id", pa.string()), ("text", pa.string())])
"""One row per document; `text` is title and body joined by one space, never empty."""

QUERIES = pa.schema([("query_id", pa.string()), ("text", pa.string())])
"""One row per query, `text` never empty."""

QRELS = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("relevance", pa.int32())])
"""One row per judgement; relevance may be negative in some collections (spam)."""

WEIGHTS = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("weight", pa.float64())])
"""One row per relevant document that counts more or less than 1 in training, such as a click that
was unlikely where it stood."""

CANDIDATES = pa.schema(
    [
        ("query_id", pa.string()),
        ("doc_ids", _IDS),
        ("ranks", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("sources", _IDS),
    ]
)
"""One row per query, best first; ranks count from 1 and are the order. Ties keep
the order of the file that was read; where there is none (BM25, dense, fused), doc_id decides."""

NEGATIVES = pa.schema(
    [
        ("query_id", pa.string()),
        ("doc_ids", _IDS),
        ("relevance", pa.list_(pa.int32())),
        ("ranks", pa.list_(pa.int32())),
        ("sources", _IDS),
    ]
)
"""One row per group, positives first. A source is the name of the list that has the rank, `corpus`
or `qrels`; rank 0 marks a document that was not retrieved."""

TEACHER = pa.schema(
    [("query_id", pa.string()), ("doc_ids", _IDS), ("values", pa.list_(pa.float64()))]
)
"""One row per query; `values` are scores (higher is better) or ranks (1 is best), as the teacher's
kind says."""

_COMPARISONS = [
    ("first", pa.list_(pa.int32())),
    ("second", pa.list_(pa.int32())),
    ("probabilities", pa.list_(pa.float64())),
]

PAIRWISE = pa.schema([*TEACHER, *_COMPARISONS])
"""TEACHER, and the comparisons behind a pairwise teacher's values. `first` and `second` are
positions in `doc_ids`; a probability in [0, 1] is that of the first being more relevant."""

GROUPS = pa.schema(
    [
        ("query_index", pa.int64()),
        ("doc_indices", pa.list_(pa.int64())),
        ("relevance", pa.list_(pa.int32())),
        ("teacher_values", pa.list_(pa.float64())),
        ("ranks", pa.list_(pa.int32())),
    ]
)
"""One row per group; `teacher_values` is null without a teacher, NaN for documents that the teacher
has no value for."""

WEIGHT = pa.field("weight", pa.float64())
"""A further column of groups where documents have weights: the mean of the group's positives, 1
where none has one. The group's loss is multiplied by it."""

PAIRWISE_GROUPS = pa.schema([*GROUPS, *_COMPARISONS])
"""GROUPS, and a pairwise teacher's comparisons of two documents of the group. They are as in
PAIRWISE, with positions in `doc_indices`; the lists may be empty."""

RUN = pa.schema(
    [
        ("query_id", pa.string()),
        ("doc_ids", _IDS),
        ("scores", pa.list_(pa.float32())),
    ]
)
"""One row per query, a re-ranked list, best first. The order counts; the documents behind the
re-ranked ones keep first-stage scores."""

METRICS = pa.schema([("query_id", pa.string()), ("measure", pa.string()), ("value", pa.float64())])
"""One row per query and measure; means are computed from these, never stored alone."""


def candidate_row(
    query_id: str, doc_ids: Sequence[str], scores: Sequence[float], sources: str | Sequence[str]
) -> dict[str, Any]:
    """A row of CANDIDATES whose ranks are the order of the documents.

    Args:
        sources: of every document, or one for all.
    """
    return {
        "query_id": query_id,
        "doc_ids": doc_ids,
        "ranks": range(1, len(doc_ids) + 1),
        "scores": scores,
        "sources": [sources] * len(doc_ids) if isinstance(sources, str) else sources,
    }
