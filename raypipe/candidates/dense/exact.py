"""The documents with the highest dot products, exactly: blocks of documents, a running merge.

Shape letters: Q queries, B documents of a block, X columns of any table, K kept, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from raypipe.inference.embeddings import Vectors

BLOCK = 8192
MARGIN = 32
Array = np.ndarray[Any, Any]
Found = list[tuple[Array, Array]]
"""(document rows int64, float32 scores) per query, best first."""


class ExactSearch:
    """All documents, by matrix products with no more than one block of them at a time.

    The last bits of a float32 product depend on the block's shape, the threads and the device:
    equal vectors get different scores. So the best depth + 32 are scored again in float64, rounded
    once and sorted by (-score, id). Where float32's error bound does not rule out that a document
    left behind belongs among them (long ties, mostly), the query goes through all documents in
    float64. The result is that of the whole float64 matrix, on any machine.
    """

    def __init__(self, docs: Vectors, order: Array, device: str = "cpu") -> None:
        self._docs = docs
        self._order = order
        self._rank_N = torch.from_numpy(order).to(device)
        self._device = device

    def __call__(self, queries_QH: Array, depth: int) -> Found:
        """The first min(depth, documents) of every query."""
        if not len(queries_QH):
            return []
        rows_QK, reach_Q = self._fast(queries_QH, depth + MARGIN)
        results = rank(self._docs, self._order, queries_QH, rows_QK, depth)
        if rows_QK.shape[1] == len(self._docs):
            return results
        last_Q = np.array([scores[-1] for _, scores in results], dtype=np.float64)
        unsure = np.flatnonzero(last_Q <= reach_Q)
        if len(unsure):
            rows_QK = self._slow(queries_QH[unsure], depth)
            again = rank(self._docs, self._order, queries_QH[unsure], rows_QK, depth)
            for query, result in zip(unsure, again, strict=True):
                results[query] = result
        return results

    def _fast(self, queries_QH: Array, keep: int) -> tuple[Array, Array]:
        """Rows [Q, keep] of the highest float32 scores, and what no other document exceeds."""
        best = _Best(keep)
        longest = 0.0
        query_QH = self._tensor(queries_QH, torch.float32)
        for start, block_BH in self._docs.blocks(BLOCK):
            doc_BH = self._tensor(block_BH, torch.float32)
            longest = max(longest, float(doc_BH.norm(dim=1).max()))
            best.add(query_QH @ doc_BH.T, start)
        # |float32 dot - dot| <= H 2^-24 |q| |d| (Higham 2002, 3.1); two more for the roundings here
        unit = (queries_QH.shape[1] + 2) * 2.0**-24
        error_Q = unit * np.linalg.norm(queries_QH.astype(np.float64), axis=1) * longest
        values_QK, rows_QK = (x.cpu().numpy() for x in (best.values, best.rows))
        return rows_QK, values_QK.min(axis=1).astype(np.float64) + error_Q

    def _slow(self, queries_QH: Array, keep: int) -> Array:
        """Rows [Q, keep] of the highest float64 scores, of equal ones those of the lowest ids."""
        best = _Best(keep, self._rank_N)
        query_QH = self._tensor(queries_QH, torch.float64)
        for start, block_BH in self._docs.blocks(BLOCK):
            doc_BH = self._tensor(block_BH, torch.float64)
            best.add((query_QH @ doc_BH.T).float(), start)
        rows: Array = best.rows.cpu().numpy()
        return rows

    def _tensor(self, array: Array, dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(np.array(array)).to(self._device, dtype)  # the map is read-only


class _Best:
    """The highest scores of the blocks so far; with ranks, equal ones by rank."""

    def __init__(self, keep: int, rank_N: torch.Tensor | None = None) -> None:
        self.keep = keep
        self.rank_N = rank_N
        self.values: torch.Tensor
        self.rows: torch.Tensor

    def add(self, scores_QB: torch.Tensor, start: int) -> None:
        """Merge the scores of the documents from row `start` on."""
        rows_B = torch.arange(start, start + scores_QB.shape[1], device=scores_QB.device)
        values, rows = self._cut(scores_QB, rows_B.expand_as(scores_QB))
        if start:
            values, rows = torch.cat([self.values, values], 1), torch.cat([self.rows, rows], 1)
            values, rows = self._cut(values, rows)
        self.values, self.rows = values, rows

    def _cut(self, values: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        columns = top(values, None if self.rank_N is None else self.rank_N[rows], self.keep)
        return values.gather(1, columns), rows.gather(1, columns)


def top(scores_QX: torch.Tensor, rank_QX: torch.Tensor | None, keep: int) -> torch.Tensor:
    """[Q, min(keep, X)] columns of the highest scores, of equal ones those with the lowest rank.

    torch.topk takes any of equal scores: a row with an equal score left out is sorted in full.
    Without ranks any of the equal scores will do.
    """
    keep = min(keep, scores_QX.shape[1])
    values, columns = scores_QX.topk(keep, dim=1)
    if rank_QX is None:
        return columns
    last = values[:, -1:]
    tied = (scores_QX == last).sum(1) > (values == last).sum(1)
    if tied.any():
        by_rank = rank_QX[tied].argsort(dim=1)
        scores = scores_QX[tied].gather(1, by_rank)
        best = scores.sort(dim=1, descending=True, stable=True).indices[:, :keep]
        columns[tied] = by_rank.gather(1, best)
    return columns


def rank(
    docs: Vectors, order: Array, queries_QH: Array, rows: Sequence[Array] | Array, depth: int
) -> Found:
    """The best `depth` of some documents per query, by (-score, id), scored in float64.

    Args:
        order: of every document the rank of its id.
        rows: per query the documents to score.
    """
    results = []
    for query_H, rows_K in zip(queries_QH, rows, strict=True):
        exact_K = docs.take(rows_K).astype(np.float64) @ query_H.astype(np.float64)
        scores_K = exact_K.astype(np.float32)
        best = np.lexsort((order[rows_K], -scores_K))[:depth]
        results.append((rows_K[best], scores_K[best]))
    return results
