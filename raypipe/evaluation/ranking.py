"""Ranked lists: written as TREC run files, re-ranked, and perfectly re-ranked."""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from raypipe.records import RUN

_LISTS = pa.schema([RUN.field("query_id"), RUN.field("doc_ids")])
Ranking = dict[str, list[str]]
"""query_id to doc_ids, best first."""
NOT_RERANKED = "-first-stage"
"""The end of the tag of documents that a run file holds behind the re-ranked ones."""


def ranking(run: pa.Table) -> Ranking:
    """The doc_ids of a RUN or CANDIDATES table in their order, without scores.

    Raises:
        ValueError: a query has two rows, or a document stands twice in one list.
    """
    out: Ranking = {}
    ids = zip(run["query_id"].to_pylist(), run["doc_ids"].to_pylist(), strict=True)
    for query_id, doc_ids in ids:
        if query_id in out:
            raise ValueError(
                f"query {query_id!r} has two rows; expected one row per query, drop one of them"
            )
        if len(set(doc_ids)) < len(doc_ids):
            twice = next(d for i, d in enumerate(doc_ids) if d in doc_ids[:i])
            raise ValueError(f"query {query_id!r} ranks document {twice!r} twice; keep one of them")
        out[query_id] = doc_ids
    return out


def write_trec_run(
    target: str | Path | IO[str], run: pa.Table, tag: str, *, depth: int | None = None
) -> tuple[int, int]:
    """Write a RUN or CANDIDATES table as a TREC run, gzipped if the path ends in .gz.

    Some readers order by rank, others by score, so the scores of a list fall strictly: a score that
    is not below the one before it (a tie, the first stage's score of a document that was not
    re-ranked) is lowered to the next float32 below that one.

    Args:
        depth: the documents of each list that were re-ranked; the others get the tag with
            `NOT_RERANKED` behind it. None for a list that has one origin.

    Returns:
        The number of lines written, and how many of the scores were lowered.

    Raises:
        ValueError: an id or the tag is empty or has white space, or a score is NaN or infinite; a
            run file cannot hold it.
    """
    if isinstance(target, str | Path):
        path = Path(target)
        with open(path, "wb") as raw:
            packed = path.suffix == ".gz"
            # No time stamp and no name inside: same run, same bytes.
            binary: Any = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if packed else raw
            with io.TextIOWrapper(binary, encoding="utf-8", newline="\n") as text:
                return write_trec_run(text, run, tag, depth=depth)
    lines = lowered = 0
    _check_id(tag, "tag")
    columns = (run[name].to_pylist() for name in ("query_id", "doc_ids", "scores"))
    for query_id, doc_ids, scores in zip(*columns, strict=True):
        _check_id(query_id, "query_id")
        for doc_id, score in zip(doc_ids, scores, strict=True):
            _check_id(doc_id, "doc_id")
            if not math.isfinite(score):
                raise ValueError(
                    f"query {query_id!r}: expected finite scores, document {doc_id!r} has {score}; "
                    "no reader takes such a run file, score again"
                )
        falling = _falling(scores)
        if len(falling) and not np.isfinite(falling[-1]):
            raise ValueError(
                f"query {query_id!r}: expected scores above {scores[-1]}, there is no float32 "
                "below it for a tie; score again"
            )
        lowered += int((falling != np.asarray(scores, np.float32)).sum())
        for rank, (doc_id, score) in enumerate(zip(doc_ids, falling, strict=True), start=1):
            origin = tag if depth is None or rank <= depth else f"{tag}{NOT_RERANKED}"
            target.write(f"{query_id} Q0 {doc_id} {rank} {score:.9g} {origin}\n")
        lines += len(doc_ids)
    return lines, lowered


def _falling(scores: Sequence[float]) -> np.ndarray:
    """[D] float32, each score at most the next float32 below the one before it.

    Equal 2, 2 and 1 become 2, 1.99999988 and 1. Floats are counted as whole numbers in their order,
    in which "below the one before" is a running minimum; below the lowest float stands -infinity.
    """
    bits = np.asarray(scores, np.float32).view(np.int32).astype(np.int64)
    number_of = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))
    position = np.arange(len(bits))
    falling = np.minimum.accumulate(number_of + position) - position
    falling = np.maximum(falling, -0x7F800000)
    signed = np.where(falling >= 0, falling, -falling | 0x80000000)
    return signed.astype(np.uint32).view(np.float32)


def constant_lists(run: pa.Table, depth: int | None = None) -> int:
    """How many lists have two documents or more, all with one score: their scores rank nothing.

    Args:
        depth: the documents of each list that were re-ranked, whose scores count; None counts all.
    """
    heads = (scores[:depth] for scores in run["scores"].to_pylist())
    return sum(len(head) > 1 and min(head) == max(head) for head in heads)


def _check_id(text: str, what: str) -> None:
    if text.encode().split() != [text.encode()]:
        raise ValueError(
            f"{what} {text!r}: a TREC run needs ids without white space that are not empty; "
            "rename it, or keep this run as Parquet"
        )


def rerank(candidates: pa.Table, scores: Mapping[str, Sequence[float]], depth: int) -> pa.Table:
    """Re-rank the first `depth` candidates by score; the others follow in first-stage order.

    Args:
        candidates: CANDIDATES, best first.
        scores: per query one score for each of its first min(depth, n) candidates, in their order,
            higher is better, read as float32. Equal scores leave the candidates' order as it is.
        depth: at least 1.

    Returns:
        RUN with one row per row of `candidates`; the tail keeps its first-stage scores, which may
        exceed those of the head.

    Raises:
        ValueError: a query has no scores, the wrong number of them, or NaN or infinity among them.
    """

    def order(query_id: str, head: list[str]) -> tuple[list[int], np.ndarray]:
        head_scores = np.asarray(scores.get(query_id, ()), dtype=np.float32)
        if head_scores.shape != (len(head),):
            raise ValueError(
                f"query {query_id!r}: expected {len(head)} scores (depth {depth}), "
                f"found {head_scores.size}; score these candidates first"
            )
        if not (finite := np.isfinite(head_scores)).all():
            wrong = int(finite.argmin())
            found = "NaN" if np.isnan(head_scores[wrong]) else "infinite"
            raise ValueError(
                f"query {query_id!r}: a score is {found} (document {head[wrong]!r}); the model has "
                "diverged or overflowed: score with an earlier checkpoint, or in fp32"
            )
        return np.argsort(-head_scores, kind="stable").tolist(), head_scores

    return _reordered(candidates, depth, order)


def rerank_to(
    candidates: pa.Table,
    ranked: Mapping[str, Sequence[Mapping[str, Any]]],
    depth: int,
    scored: int,
    most: int | None = None,
) -> pa.Table:
    """What a run that re-ranked `scored` candidates is with fewer of them, without scores.

    Args:
        candidates: query_id and doc_ids, best first.
        ranked: per query the row of the run, whose first `scored` documents are in its order.
        depth: at most `scored`.
        most: documents of each list to keep; None keeps all.

    Returns:
        query_id and doc_ids, one row per row of `candidates`: the first `depth` candidates in the
        run's order, then the others in their own.
    """
    query_ids = candidates["query_id"].to_pylist()
    lists = []
    for query_id, doc_ids in zip(query_ids, candidates["doc_ids"].to_pylist(), strict=True):
        (row,) = ranked[query_id]
        head = set(doc_ids[:depth])
        ordered = [doc_id for doc_id in row["doc_ids"][:scored] if doc_id in head]
        lists.append((ordered + doc_ids[depth:])[:most])
    return pa.table({"query_id": query_ids, "doc_ids": lists}, schema=_LISTS)


def oracle(candidates: pa.Table, qrels: pa.Table, depth: int) -> pa.Table:
    """The best that any re-ranker of the first `depth` candidates can do.

    The head is ordered by relevance, ties by rank; a document without judgement has relevance 0.
    The oracle reads the judgements, so it is a bound and no competitor.
    """
    columns = (qrels[name].to_pylist() for name in ("query_id", "doc_id", "relevance"))
    judged = {(q, d): relevance for q, d, relevance in zip(*columns, strict=True)}

    def order(query_id: str, head: list[str]) -> tuple[list[int], np.ndarray]:
        gains = np.array([judged.get((query_id, d), 0) for d in head], dtype=np.float32)
        return sorted(range(len(head)), key=lambda i: -gains[i]), gains

    return _reordered(candidates, depth, order)


def _reordered(candidates: pa.Table, depth: int, order: Any) -> pa.Table:
    if depth < 1:
        raise ValueError(f"expected a depth of at least 1, found {depth}; 100 is common")
    columns = (candidates[name].to_pylist() for name in ("query_id", "doc_ids", "scores"))
    rows = []
    for query_id, doc_ids, first_stage in zip(*columns, strict=True):
        permutation, head_scores = order(query_id, doc_ids[:depth])
        rows.append(
            {
                "query_id": query_id,
                "doc_ids": [doc_ids[i] for i in permutation] + doc_ids[depth:],
                "scores": [float(head_scores[i]) for i in permutation] + first_stage[depth:],
            }
        )
    return pa.Table.from_pylist(rows, schema=RUN)
