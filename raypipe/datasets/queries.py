"""Choosing queries of a split, such as the judged ones, in an order that their ids' hashes fix."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

from raypipe.config import ConfigError
from raypipe.datasets.dataset import Dataset
from raypipe.datasets.docstore import IdCheck
from raypipe.records import QRELS, QUERIES
from raypipe.tables.fields import are_plain, is_plain


@dataclass(frozen=True)
class SelectedQueries:
    """Chosen queries with their judgements."""

    queries: pa.Table
    """`records.QUERIES`, in hash order."""

    qrels: pa.Table
    """`records.QRELS` of these queries only, in the queries' order, then as in the source."""

    counts: dict[str, int]
    """See `select_queries`."""


def select_queries(
    dataset: Dataset,
    limit: int | None = None,
    skip: int = 0,
    positive_relevance: int = 1,
    require_positive: bool = True,
    keep_unjudged: bool = False,
) -> SelectedQueries:
    """Usable queries number `skip` to `skip + limit`, ordered by the SHA-256 of their id.

    The choice does not depend on the file's order, and a larger `limit` only adds queries at the
    end. Two selections with disjoint [skip, skip + limit) share no query.

    Args:
        limit: at least 1; None takes all.
        positive_relevance: the least relevance of a positive.
        require_positive: False keeps every judged query, as an evaluation needs.
        keep_unjudged: keep every query with text, as distillation of lists needs, whatever
            `require_positive` says.

    Returns:
        Counts: `queries` chosen, `usable_queries` before skip and limit, `qrels` of the chosen, and
        the drops: `empty_queries`, `duplicate_queries`, `queries_without_qrels`,
        `queries_without_positive`, `qrels_without_query` (judged query ids that have no query) and
        `duplicate_qrels` (the highest relevance stays). With `keep_unjudged`,
        `unjudged_queries_kept` among the usable ones.

    Raises:
        ConfigError: `limit` or `skip` out of range, an id that is refused, or nothing left.
    """
    if skip < 0 or (limit is not None and limit < 1):
        raise ConfigError(
            f"expected limit >= 1 and skip >= 0, found limit {limit}, skip {skip}; set them so"
        )
    counts: Counter[str] = Counter()
    texts = _texts(dataset, counts)
    judged = _judgements(dataset, counts)
    counts["qrels_without_query"] = len(judged.keys() - texts.keys())
    counts["empty_queries"] = sum(not text for text in texts.values())
    filled = [query_id for query_id, text in texts.items() if text]
    usable = [query_id for query_id in filled if query_id in judged]
    counts["queries_without_qrels"] = len(filled) - len(usable)
    counts["queries_without_positive"] = 0
    if keep_unjudged:
        counts["unjudged_queries_kept"], usable = counts["queries_without_qrels"], filled
        counts["queries_without_qrels"] = 0
    elif require_positive:
        positive = [i for i in usable if max(judged[i].values()) >= positive_relevance]
        counts["queries_without_positive"] = len(usable) - len(positive)
        usable = positive
    counts["usable_queries"] = len(usable)
    chosen = sorted(usable, key=lambda i: hashlib.sha256(i.encode()).digest())[skip:][:limit]
    if not chosen:
        raise ConfigError(
            f"dataset {dataset.name}: no query left (skip {skip}); found {dict(counts)}; the "
            "counters say why, or lower skip"
        )
    return _selected(chosen, texts, judged, counts)


def _texts(dataset: Dataset, counts: Counter[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    counts["duplicate_queries"] = 0
    check = IdCheck(dataset, "query", counts)
    for query_id, text in dataset.queries():
        if not is_plain(query_id):
            check(query_id)
        if query_id in texts:
            counts["duplicate_queries"] += 1
        else:
            texts[query_id] = text
    return texts


def _judgements(dataset: Dataset, counts: Counter[str]) -> dict[str, dict[str, int]]:
    judged: dict[str, dict[str, int]] = {}
    counts["duplicate_qrels"] = 0
    for query_id, doc_id, relevance in dataset.qrels():
        docs = judged.setdefault(query_id, {})
        if doc_id in docs:
            counts["duplicate_qrels"] += 1
            relevance = max(relevance, docs[doc_id])
        docs[doc_id] = relevance
    check = IdCheck(dataset, "judgement", counts)
    for query_id, docs in judged.items():
        ids = [query_id, *docs]
        for text in () if are_plain(ids) else ids:
            check(text)
    return judged


def _selected(
    chosen: list[str],
    texts: dict[str, str],
    judged: dict[str, dict[str, int]],
    counts: dict[str, int],
) -> SelectedQueries:
    rows = [(i, doc, value) for i in chosen for doc, value in judged.get(i, {}).items()]
    queries = pa.table([chosen, [texts[i] for i in chosen]], schema=QUERIES)
    columns = list(zip(*rows, strict=True)) or [()] * len(QRELS)
    qrels = pa.table([list(column) for column in columns], schema=QRELS)
    return SelectedQueries(queries, qrels, {**counts, "queries": len(chosen), "qrels": len(rows)})
