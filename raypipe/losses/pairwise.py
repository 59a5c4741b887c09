"""Losses over the pairs of one query that its labels or its teacher order: the order counts.

Shapes: Q queries of the batch, D documents per group; QDD holds (i, j) at [q, i, j].
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn.functional import relu, softplus

from raypipe.losses.base import Known, Loss, Targets, TeacherKind, masked_mean
from raypipe.losses.order import margins, ordered, ranks


class RankNet(Loss):
    """RankNet: logistic loss on every pair that the targets order; ties make no pair.

    L_q = mean over {(i, j): t_i > t_j} of w_ij * softplus(-(s_i - s_j)), softplus(x) = ln(1 + e^x),
    where w_ij = 1, or 1 / (rank_i + rank_j) with weights = reciprocal_rank.

    Only the order of the targets counts. Over the order of a large language model it is the
    DistillRankNET of the LLM re-ranking papers.

    Source: Burges et al. 2005, Learning to Rank using Gradient Descent; the weights from Reddy et
    al. 2024, FIRST: Faster Improved Listwise Reranking with Single Token Decoding, arXiv
    2406.15657. Ranks are those of the targets; a published implementation took the student's.
    Bounds: above 0; ln 2 when all scores are equal, less with weights; unbounded as a pair is ever
    more wrong.

    Example: s = (ln 3, 0, ln 2), t = (3, 2, 1). The margins are ln(3), ln(3/2) and -ln(2), the pair
    losses ln(1 + 1/3), ln(1 + 2/3) and ln(1 + 2), L = ln(4/3 * 5/3 * 3) / 3 = 0.63237. The weights
    of the pairs are 1/(1 + 2), 1/(1 + 3) and 1/(2 + 3), with them
    L = (ln(4/3) / 3 + ln(5/3) / 4 + ln(3) / 5) / 3 = 0.14777.
    """

    teacher_kinds: ClassVar[frozenset[TeacherKind]] = frozenset({"score", "rank"})

    type: Literal["ranknet"] = "ranknet"
    targets: Targets = "labels"
    """What orders the pairs: relevance labels, or a teacher's scores or ranks."""
    weights: Literal["none", "reciprocal_rank"] = "none"
    """Of the pairs: all 1, or more at the top. Documents of equal target share their mean rank;
    the sum is divided by the number of pairs, not by the sum of the weights."""

    @property
    def uses(self) -> Targets:
        return self.targets

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        pairs_QDD = ordered(targets_QD, mask_QD)
        loss_QDD = softplus(-margins(scores_QD))
        if self.weights == "reciprocal_rank":
            ranks_QD = ranks(pairs_QDD, mask_QD)
            loss_QDD = loss_QDD / (ranks_QD.unsqueeze(2) + ranks_QD.unsqueeze(1))
        return masked_mean(loss_QDD, pairs_QDD, dim=(1, 2))


class Hinge(Loss):
    """Hinge: every pair that the targets order should be a margin apart; then it rests.

    L_q = mean over {(i, j): t_i > t_j} of max(0, m - (s_i - s_j)).

    With labels the pairs are (positive, negative); ties make no pair.

    Source: Herbrich et al. 2000, Large Margin Rank Boundaries for Ordinal Regression; Joachims
    2002, Optimizing Search Engines using Clickthrough Data.
    Bounds: 0, once every pair is m apart, to infinity; m when all scores are equal.

    Example: s = (2, 3/2, 0), the first is positive. The pairs are 1/2 and 2 apart, at m = 1
    L = (1/2 + 0) / 2 = 1/4, at m = 2 L = (3/2 + 0) / 2 = 3/4.
    """

    teacher_kinds: ClassVar[frozenset[TeacherKind]] = frozenset({"score", "rank"})

    type: Literal["hinge"] = "hinge"
    targets: Targets = "labels"
    """What orders the pairs: relevance labels, or a teacher's scores or ranks."""
    margin: float = Field(1.0, gt=0)
    """The m of the formula, in units of the student's score."""

    @property
    def uses(self) -> Targets:
        return self.targets

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        missing_QDD = relu(self.margin - margins(scores_QD))
        return masked_mean(missing_QDD, ordered(targets_QD, mask_QD), dim=(1, 2))
