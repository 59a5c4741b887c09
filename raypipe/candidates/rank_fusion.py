"""Several ranked lists of one query as one list: weighted sums of what a document gains in each.

Shape letters: M members (lists), D distinct documents.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from raypipe.config import Config
from raypipe.tables.scales import min_max, zscore

Array = np.ndarray[Any, Any]


class _Method(Config):
    """What a document gains from its rank or score in one list."""

    reads_scores: ClassVar[bool] = True

    @abstractmethod
    def values(self, scores: Array, ranks: Array) -> tuple[Array, float]:
        """The gain of every document of a list, and the gain of a document that is not in it.

        Args:
            scores: of the list's documents, at least one.
            ranks: of the same documents, from 1.
        """


class ReciprocalRank(_Method):
    """1 / (k + rank), 0 for what is absent (Cormack, Clarke and Buettcher 2009).

    Rank 1 of one list and rank 3 of another with k = 60: 1/61 + 1/63 = 0.03227.
    """

    type: Literal["reciprocal_rank"] = "reciprocal_rank"
    k: float = Field(60, ge=0)
    """How flat the top is; the paper's 60."""

    reads_scores: ClassVar[bool] = False

    def values(self, scores: Array, ranks: Array) -> tuple[Array, float]:
        return 1 / (self.k + ranks), 0.0


class MinMax(_Method):
    """(score - lowest) / (highest - lowest), 0 for what is absent (Fox and Shaw 1994, CombSUM).

    Scores 9, 5, 1 become 1, 0.5, 0. A list of equal scores says nothing: zeros.
    """

    type: Literal["min_max"] = "min_max"

    def values(self, scores: Array, ranks: Array) -> tuple[Array, float]:
        return min_max(scores), 0.0


class ZSum(_Method):
    """(score - mean) / deviation over the list; what is absent counts as the list's lowest.

    Scores 5, 4, 2, 1: mean 3, variance 2.5. A list of equal scores says nothing: zeros.
    """

    type: Literal["z_sum"] = "z_sum"

    def values(self, scores: Array, ranks: Array) -> tuple[Array, float]:
        gains = zscore(scores)
        return gains, float(gains.min())


Method = Annotated[ReciprocalRank | MinMax | ZSum, Field(discriminator="type")]


@dataclass(frozen=True)
class MemberList:
    """What one member retrieved for one query."""

    doc_ids: Sequence[str]
    scores: Array
    """float64, higher is better."""
    ranks: Array
    """From 1; they are the order, also where scores say otherwise."""


@dataclass(frozen=True)
class FusedList:
    """The union of the lists, best first."""

    doc_ids: list[str]
    scores: list[float]
    """Representable in float32."""
    members: list[tuple[int, ...]]
    """Per document the positions of the lists that have it."""


def fuse(
    lists: Sequence[MemberList], weights: Sequence[float], method: _Method, depth: int
) -> FusedList:
    """Weighted sums over the lists, sorted by (-score, doc_id), cut to `depth`.

    An empty list contributes nothing. The sum does not depend on the order of the lists, not even
    in its last bit.
    """
    doc_ids = list(dict.fromkeys(d for ranked in lists for d in ranked.doc_ids))
    column_of = {doc_id: column for column, doc_id in enumerate(doc_ids)}
    gains_MD = np.zeros((len(lists), len(doc_ids)))
    members: list[list[int]] = [[] for _ in doc_ids]
    for member, (ranked, weight) in enumerate(zip(lists, weights, strict=True)):
        if not len(ranked.doc_ids):
            continue
        columns = [column_of[d] for d in ranked.doc_ids]
        gains, absent = method.values(ranked.scores, ranked.ranks)
        gains_MD[member] = weight * absent
        gains_MD[member, columns] = weight * gains
        for column in columns:
            members[column].append(member)
    # sorted, because (a + b) + c is not a + (b + c); rounded, so that ties are those on disk
    scores_D = np.sort(gains_MD, axis=0).sum(axis=0).astype(np.float32)
    best = sorted(range(len(doc_ids)), key=lambda i: (-scores_D[i], doc_ids[i]))[:depth]
    return FusedList(
        [doc_ids[i] for i in best],
        [float(scores_D[i]) for i in best],
        [tuple(members[i]) for i in best],
    )
