"""What a data set holds, in a few lines, before anything is made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from raypipe.datasets.queries import select_queries
from raypipe.datasets.steps import QuerySet

FIRST = 10_000
"""Documents that lengths are of, and that ids of judgements are looked for in."""
SHOWN = 100


def look(data: QuerySet) -> Iterator[str]:
    """Sizes, lengths in words, relevances, and the first text of each kind.

    Reads queries and judgements whole, and the beginning of the documents.

    Raises:
        ConfigError: the data set cannot be read, or has no query.
    """
    dataset = data.open()
    dataset.check()
    chosen = select_queries(dataset, require_positive=False, keep_unjudged=True)
    texts = chosen.queries["text"].to_pylist()
    judged = Counter(chosen.qrels["relevance"].to_pylist())
    yield f"{dataset.name}: {len(texts):,} queries, {_lengths(texts)}"
    with_judgements = len(set(chosen.qrels["query_id"].to_pylist()))
    values = ", ".join(f"{count:,} of {value}" for value, count in sorted(judged.items()))
    yield (
        f"judgements: {sum(judged.values()):,} for {with_judgements:,} queries, by relevance: "
        f"{values}"
        if judged
        else "judgements: none"
    )
    docs = list(islice(dataset.docs(), FIRST + 1))
    complete, docs = len(docs) <= FIRST, docs[:FIRST]
    total = len(docs) if complete else dataset.docs_count()
    size = "more than " * (total is None) + f"{total or FIRST:,}"
    of = "" if complete else f" of the first {FIRST:,}"
    yield f"documents: {size}, {_lengths([text for _, text in docs])}{of}"
    if empty := sum(not text for _, text in docs):
        yield f"documents without text, which are left out: {empty:,}{of}"
    if complete and judged:
        known = {doc_id for doc_id, _ in docs}
        missing = sum(doc_id not in known for doc_id in chosen.qrels["doc_id"].to_pylist())
        yield f"judged documents that the collection lacks: {missing:,}"
    drops = dict(dataset.judgement_counts())
    drops |= {
        name: n for name, n in chosen.counts.items() if n and name not in ("queries", "qrels")
    }
    drops.pop("usable_queries", None)
    if complete:
        drops |= {name: n for name, n in dataset.counts().items() if n}
    if drops:
        yield "counted: " + ", ".join(f"{name} {count:,}" for name, count in drops.items())
    query = chosen.queries.slice(0, 1).to_pylist()[0]
    yield f"a query, {query['query_id']}: {query['text'][:SHOWN]}"
    yield from (f"a document, {doc_id}: {text[:SHOWN]}" for doc_id, text in docs[:1])


def _lengths(texts: Sequence[str]) -> str:
    """Such as `9 words (95 % up to 14)`."""
    middle, high = np.percentile([len(text.split()) for text in texts] or [0], [50, 95])
    return f"{middle:.0f} words (95 % up to {high:.0f})"
