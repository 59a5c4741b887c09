"""Losses over the pairs of one query that fit by how much a teacher prefers one document.

Shapes: Q queries of the batch, D documents per group; QDD holds (i, j) at [q, i, j].
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus
from torch.special import entr

from raypipe.losses.base import Known, Loss, TeacherKind, masked_mean
from raypipe.losses.order import margins, ordered, usable_pairs


class MarginMSE(Loss):
    """MarginMSE: the student's score margins should equal the teacher's.

    L_q = mean over pairs (i, j) of ((s_i - s_j) - scale * (t_i - t_j))^2.

    A document that is neither positive nor negative is in no pair, unless pairs = all, which reads
    no labels.

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
    scale: float = Field(1.0, gt=0)
    """Multiplies the teacher's margins; cosine margins of 0.1 would squash a student's logits."""

    @property
    def needs_positive(self) -> bool:
        return self.pairs == "positive_negative"

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        if self.pairs == "all":
            pairs_QDD = ordered(targets_QD, mask_QD)
        elif known is None:
            raise ValueError(
                "margin_mse with pairs=positive_negative expected known labels, found None; "
                "pass them or set pairs=all"
            )
        else:
            positive_QD, negative_QD = known.labels_QD > 0, known.labels_QD == 0
            pairs_QDD = positive_QD.unsqueeze(2) & negative_QD.unsqueeze(1)
        error_QDD = margins(scores_QD) - self.scale * margins(targets_QD).float()
        return masked_mean(error_QDD.square(), pairs_QDD, dim=(1, 2))


class PairKL(Loss):
    """PairKL: the student prefers one document over another with the teacher's probability.

    L_q = mean over pairs i != j of KL(p_ij || sigmoid(s_i - s_j)),
    KL(p || q) = p ln(p / q) + (1 - p) ln((1 - p) / (1 - q)).

    The pairs are those that a pairwise teacher compared, with its probabilities. The values of any
    other teacher stand for all pairs, p_ij = sigmoid(t_i - t_j), as if they were strengths in a
    Bradley-Terry model; (i, j) and (j, i) then lose the same. A temperature T makes p_ij
    sigmoid(logit(p_ij) / T) and sigmoid((t_i - t_j) / T).

    Source: Huang and Chen 2024, PairDistill: Pairwise Relevance Distillation for Dense Retrieval,
    arXiv 2410.01383.
    Bounds: 0, at margins equal to the teacher's over T, to infinity.

    Example: s = (0, 0, 0), t = (ln 3, 0, 0). The teacher prefers the first over either other with
    p = 3/4, KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.13081, and neither of the others over the other,
    KL = 0, L = 2/3 * 0.13081 = 0.08721. At T = 1/2 p = 9/10, KL = 0.36806, L = 0.24538. With a
    pairwise teacher that gives p = 3/4 for the first over the second and 9/10 for the second over
    the third, and compares no other pair, L = (0.13081 + 0.36806) / 2 = 0.24944.
    """

    teacher_kinds: ClassVar[frozenset[TeacherKind]] = frozenset({"score"})

    compares: ClassVar[bool] = True

    type: Literal["pair_kl"] = "pair_kl"
    teacher_temperature: float = Field(1.0, gt=0)
    """Divides the teacher's margins, or a pairwise teacher's logits; below 1 sharpens them."""

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        if known is not None and known.preferences_QDD is not None:
            margins_QDD = torch.logit(known.preferences_QDD)
            pairs_QDD = ~margins_QDD.isnan()
        else:
            margins_QDD = margins(targets_QD)
            same = torch.eye(mask_QD.shape[1], dtype=torch.bool, device=mask_QD.device)
            pairs_QDD = usable_pairs(mask_QD) & ~same
        probability_QDD = torch.sigmoid(margins_QDD / self.teacher_temperature)
        return pairwise_kl(scores_QD, probability_QDD, pairs_QDD)


def pairwise_kl(scores_QD: Tensor, probability_QDD: Tensor, pairs_QDD: Tensor) -> Tensor:
    """Mean over pairs of KL(p_ij || sigmoid(s_i - s_j)), shape Q; 0 for a query without pairs.

    Args:
        scores_QD: float32, finite everywhere.
        probability_QDD: that i is better than j, from 0 to 1. A teacher asked both ways round need
            not answer p_ij = 1 - p_ji.
        pairs_QDD: True where the teacher compared i with j; elsewhere probabilities may be NaN.
    """
    p_QDD = torch.where(pairs_QDD, probability_QDD, 0.5)
    entropy_QDD = (entr(p_QDD) + entr(1 - p_QDD)).float()
    p_QDD = p_QDD.float()
    margins_QDD = margins(scores_QD)
    # -ln sigmoid(m) = softplus(-m)
    cross_QDD = p_QDD * softplus(-margins_QDD) + (1 - p_QDD) * softplus(margins_QDD)
    return masked_mean(cross_QDD - entropy_QDD, pairs_QDD, dim=(1, 2))
