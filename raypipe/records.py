"""The nouns of raypipe and one pyarrow schema per artifact.

A row's number in `docs` and `queries` is its index: inside the pipeline everything speaks of
indices, ids appear only at the edges (candidates, teacher, runs, metrics).
"""

from __future__ import annotations

import pyarrow as pa

_IDS = pa.list_(pa.string())

DOCS = pa.schema([("doc_id", pa.string()), ("text", pa.string())])
"""One row per document; `text` is title and body joined by one space, never empty."""

QUERIES = pa.schema([("query_id", pa.string()), ("text", pa.string())])
"""One row per query, `text` never empty."""

QRELS = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("relevance", pa.int32())])
"""One row per judgement; relevance may be negative in some collections (spam)."""

CANDIDATES = pa.schema(
    [
        ("query_id", pa.string()),
        ("doc_ids", _IDS),
        ("ranks", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("sources", _IDS),
    ]
)
"""One row per query, best first; ranks count from 1 and are the order, ties broken by doc_id."""

NEGATIVES = pa.schema(
    [
        ("query_id", pa.string()),
        ("doc_ids", _IDS),
        ("relevance", pa.list_(pa.int32())),
        ("ranks", pa.list_(pa.int32())),
        ("sources", _IDS),
    ]
)
"""The documents of one group, positives first; rank 0 marks a document that was not retrieved, and
a source names the list that the rank counts in, `corpus` or `qrels`."""

TEACHER = pa.schema(
    [("query_id", pa.string()), ("doc_ids", _IDS), ("values", pa.list_(pa.float64()))]
)
"""One row per query; `values` are scores (higher is better) or ranks (1 is best): see `kind`."""

_COMPARISONS = [
    ("first", pa.list_(pa.int32())),
    ("second", pa.list_(pa.int32())),
    ("probabilities", pa.list_(pa.float64())),
]

PAIRWISE = pa.schema([*TEACHER, *_COMPARISONS])
"""A pairwise teacher: TEACHER, and the comparisons behind it. `first` and `second` are positions in
`doc_ids`, the probability in [0, 1] is that the first is the more relevant one."""

GROUPS = pa.schema(
    [
        ("query_index", pa.int64()),
        ("doc_indices", pa.list_(pa.int64())),
        ("relevance", pa.list_(pa.int32())),
        ("teacher_values", pa.list_(pa.float64())),
        ("ranks", pa.list_(pa.int32())),
    ]
)
"""One row per group; `teacher_values` is null without a teacher, NaN where it said nothing."""

PAIRWISE_GROUPS = pa.schema([*GROUPS, *_COMPARISONS])
"""Groups of a pairwise teacher: GROUPS, and its comparisons of two documents of the group, as in
PAIRWISE with positions in `doc_indices`; empty lists where it compared none."""

RUN = pa.schema(
    [
        ("query_id", pa.string()),
        ("doc_ids", _IDS),
        ("scores", pa.list_(pa.float32())),
    ]
)
"""A re-ranked list per query, best first: the order counts; the tail has first-stage scores."""

METRICS = pa.schema([("query_id", pa.string()), ("measure", pa.string()), ("value", pa.float64())])
"""Per query, never a mean alone."""
