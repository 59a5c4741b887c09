"""What every generator of queries writes, and what makes a text a query: ids, drops, repairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from raypipe.tables.plain_text import normalised, words

GENERATED = pa.schema(
    [
        ("query_id", pa.string()),
        ("doc_id", pa.string()),
        ("split", pa.string()),
        ("type", pa.string()),
        ("text", pa.string()),
    ]
)
"""One row per query, in the order of the passages; `doc_id` is the passage that it was written for,
`type` the way it was asked for."""
KEYWORDS = 5
"""Most words of a query of the type `keywords`."""


def query_id_of(doc_id: str, query_type: str) -> str:
    """The id of the query of one type for one passage."""
    return f"{doc_id}#{query_type}"


def type_of_query(query_id: str) -> str:
    """The type of a query, from its id."""
    return query_id.rpartition("#")[2]


def is_copy(query: str, passage: str) -> bool:
    """Whether a query is the passage itself, or more than half of it word for word."""
    asked, said = normalised(query), normalised(passage)
    return asked == said or (asked in said and 2 * len(asked) > len(said))


def why_dropped(query: str, passage: str, longest: int) -> str | None:
    """The counter of a text that is no query; None if it is one.

    Args:
        longest: most words of a query.
    """
    found = words(query)
    if not found:
        return "dropped_empty"
    if len(found) > longest:
        return "dropped_too_long"
    return "dropped_copies_of_the_passage" if is_copy(query, passage) else None


def rows_of(
    passage: dict[str, str], texts: Sequence[tuple[str, str]], counts: Counter[str]
) -> list[dict[str, str]]:
    """GENERATED rows of one passage; a text that an earlier type has too is dropped.

    Args:
        passage: its row of `passages.DRAWN`.
        texts: (type, query) in the order asked for.
        counts: of `queries_TYPE`, and of what is dropped.
    """
    rows: dict[str, dict[str, str]] = {}
    for query_type, text in texts:
        if (form := normalised(text)) in rows:
            counts["dropped_repeated_for_a_passage"] += 1
            continue
        doc_id = passage["doc_id"]
        rows[form] = {
            "query_id": query_id_of(doc_id, query_type),
            "doc_id": doc_id,
            "split": passage["split"],
            "type": query_type,
            "text": text,
        }
        counts[f"queries_{query_type}"] += 1
    return list(rows.values())
