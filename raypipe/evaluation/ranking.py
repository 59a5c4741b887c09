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

Ranking = dict[str, list[str]]
"""query_id to doc_ids, best first."""


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
    target: str | Path | IO[str], run: pa.Table, tag: str, *, score_from_rank: bool = False
) -> int:
    """Write a RUN or CANDIDATES table as a TREC run, gzipped if the path ends in .gz.

    The rank column is the order. trec_eval ignores the rank and sorts by score, although the tail
    behind a re-ranked head keeps its first-stage scores. For readers that sort by score,
    `score_from_rank` writes -rank as the score.

    Returns:
        The number of lines written.

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
                return write_trec_run(text, run, tag, score_from_rank=score_from_rank)
    lines = 0
    _check_id(tag, "tag")
    columns = (run[name].to_pylist() for name in ("query_id", "doc_ids", "scores"))
    for query_id, doc_ids, scores in zip(*columns, strict=True):
        _check_id(query_id, "query_id")
        for rank, (doc_id, score) in enumerate(zip(doc_ids, scores, strict=True), start=1):
            _check_id(doc_id, "doc_id")
            if not (score_from_rank or math.isfinite(score)):
                raise ValueError(
                    f"query {query_id!r}: expected finite scores, document {doc_id!r} has {score}; "
                    "no reader takes such a run file, score again or write the ranks instead"
                )
            shown = -rank if score_from_rank else f"{score:.9g}"
            target.write(f"{query_id} Q0 {doc_id} {rank} {shown} {tag}\n")
            lines += 1
    return lines


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
            higher is better, read as float32. Equal scores are ordered by doc_id.
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
        return sorted(range(len(head)), key=lambda i: (-head_scores[i], head[i])), head_scores

    return _reordered(candidates, depth, order)


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
