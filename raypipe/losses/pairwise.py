"""Losses over pairs of documents of one query.

Shapes: Q queries of the batch, D documents per group; QDD holds i - j at [q, i, j].
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from raypipe.losses.base import Loss, Targets, TeacherKind, masked_mean


class RankNet(Loss):
    """RankNet: logistic loss on every pair that the targets order; ties make no pair.

    L_q = mean over {(i, j): t_i > t_j} of softplus(-(s_i - s_j)), softplus(x) = ln(1 + e^x).

    Only the order of the targets counts. Over the order of a large language model it is the
    DistillRankNET of the LLM re-ranking papers.

    Source: Burges et al. 2005, Learning to Rank using Gradient Descent.
    Bounds: above 0; ln 2 when all scores are equal; unbounded as a pair is ever more wrong.

    Example: s = (ln 3, 0, ln 2), t = (3, 2, 1). The margins are ln(3), ln(3/2) and -ln(2), the pair
    losses ln(1 + 1/3), ln(1 + 2/3) and ln(1 + 2), L = ln(4/3 * 5/3 * 3) / 3 = 0.63237.
    """

    teacher_kinds: ClassVar[frozenset[TeacherKind]] = frozenset({"score", "rank"})

    type: Literal["ranknet"] = "ranknet"
    targets: Targets = "labels"
    """What orders the pairs: relevance labels, or a teacher's scores or ranks."""

    @property
    def uses(self) -> Targets:
        return self.targets

    @property
    def needs_positive(self) -> bool:
        return self.targets == "labels"

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, positive_QD: Tensor | None
    ) -> Tensor:
        pairs_QDD = _ordered(targets_QD, mask_QD)
        return masked_mean(softplus(-_margins(scores_QD)), pairs_QDD, dim=(1, 2))


class MarginMSE(Loss):
    """MarginMSE: the student's score margins should equal the teacher's.

    L_q = mean over pairs (i, j) of ((s_i - s_j) - scale * (t_i - t_j))^2.

    Every usable document that is not a positive is a negative: documents that are neither arrive
    masked.

    Source: Hofstaetter et al. 2020, Improving Efficient Neural Ranking Models with
    Cross-Architecture Knowledge Distillation, arXiv 2010.02666.
    Bounds: 0, at margins equal to the scaled teacher's, to infinity.

    Example: s = (2, 1, 0), t = (5, 1, 4), the first is positive. Student margins 1 and 2, teacher
    margins 4 and 1, L = ((1 - 4)^2 + (2 - 1)^2) / 2 = 5; with scale 1/2, (1 + 2.25) / 2 = 1.625.
    With pairs = all the teacher also orders the third above the second, margins -1 and 3:
    L = (9 + 1 + 16) / 3 = 26/3.
    """

    teacher_kinds: ClassVar[frozenset[TeacherKind]] = frozenset({"score"})

    type: Literal["margin_mse"] = "margin_mse"
    pairs: Literal["positive_negative", "all"] = "positive_negative"
    """Each positive with each negative, or every pair that the teacher orders, labels unseen."""
    scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Multiplies the teacher's margins; cosine margins of 0.1 would squash a student's logits."""

    @property
    def uses(self) -> Targets:
        return "teacher"

    @property
    def needs_positive(self) -> bool:
        return self.pairs == "positive_negative"

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, positive_QD: Tensor | None
    ) -> Tensor:
        if self.pairs == "all":
            pairs_QDD = _ordered(targets_QD, mask_QD)
        elif positive_QD is None:
            raise ValueError(
                "margin_mse with pairs=positive_negative expected positive_QD, found None; "
                "pass it or set pairs=all"
            )
        else:
            negative_QD = mask_QD & ~positive_QD
            pairs_QDD = positive_QD.unsqueeze(2) & negative_QD.unsqueeze(1)
        error_QDD = _margins(scores_QD) - self.scale * _margins(targets_QD).float()
        return masked_mean(error_QDD.square(), pairs_QDD, dim=(1, 2))


def _margins(values_QD: Tensor) -> Tensor:
    return values_QD.unsqueeze(2) - values_QD.unsqueeze(1)


def _ordered(targets_QD: Tensor, mask_QD: Tensor) -> Tensor:
    """True at [q, i, j] where both documents are usable and target i is above target j."""
    usable_QDD = mask_QD.unsqueeze(2) & mask_QD.unsqueeze(1)
    return usable_QDD & (targets_QD.unsqueeze(2) > targets_QD.unsqueeze(1))
