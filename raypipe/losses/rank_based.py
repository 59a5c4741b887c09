"""Losses over the ranks that the scores give; measures such as nDCG are made of ranks, too.

Shapes: Q queries of the batch, D documents per group; QDD holds (i, j) at [q, i, j].
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from raypipe.losses.base import Known, Loss, Targets, TeacherKind, masked_mean
from raypipe.losses.order import margins, ordered, ranks, soft_ranks, usable_pairs

Gain = Literal["linear", "exponential"]
"""What a document of target y is worth in nDCG: y, as in ir-measures' nDCG, or 2^y - 1."""


class AdrMSE(Loss):
    """ADR-MSE: approximate ranks should be the teacher's, discounted towards the bottom.

    L_q = mean over documents of (r_i - rank_i)^2 / log2(rank_i + 1),
    r_i = 1 + sum over j != i of sigmoid((s_j - s_i) / T).

    Documents that the teacher ties share their mean rank.

    Source: Schlatt et al. 2024, Rank-DistiLLM: Closing the Effectiveness Gap Between Cross-Encoders
    and LLMs for Passage Re-Ranking, arXiv 2405.07920.
    Bounds: 0, neared as the teacher's order holds by ever more T, to D^2. The gradient vanishes for
    scores many T apart, also where they are in the wrong order.

    Example: s = (0, ln 3), t = (2, 1), the teacher's ranks are 1 and 2. At T = 1 r = (7/4, 5/4) and
    L = (9/16 / log2(2) + 9/16 / log2(3)) / 2 = 0.45870. At T = 1/2 r = (19/10, 11/10) and
    L = (81/100 / log2(2) + 81/100 / log2(3)) / 2 = 0.66053.
    """

    teacher_kinds: ClassVar[frozenset[TeacherKind]] = frozenset({"score", "rank"})

    type: Literal["adr_mse"] = "adr_mse"
    temperature: float = Field(1.0, gt=0)
    """Divides the score differences; lower nears the true ranks and flattens the loss."""

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        ranks_QD = ranks(ordered(targets_QD, mask_QD), mask_QD)
        error_QD = soft_ranks(scores_QD, mask_QD, self.temperature) - ranks_QD
        return masked_mean(error_QD.square() * _discount(ranks_QD), mask_QD, dim=1)


class _OfGains(Loss):
    """Base: targets are gains, as in nDCG."""

    teacher_kinds: ClassVar[frozenset[TeacherKind]] = frozenset({"score"})
    graded: ClassVar[bool] = True

    targets: Targets = "labels"
    """What gains are made of: relevance labels, or a teacher's scores from 0. A rank is no gain: an
    order is fitted by listmle, ranknet or adr_mse."""
    gain: Gain = "linear"
    """linear: y. exponential: 2^y - 1, for targets up to 10."""

    @property
    def uses(self) -> Targets:
        return self.targets

    def refuses(self, column: Targets, low: float, high: float) -> str | None:
        return no_gain(low, high, self.gain) if column == self.uses else None


class ApproxNDCG(_OfGains):
    """ApproxNDCG: one minus nDCG with approximate ranks.

    L_q = 1 - (sum over documents of g_i / log2(1 + r_i)) / IDCG,
    r_i = 1 + sum over j != i of sigmoid((s_j - s_i) / T), g_i = y_i or 2^y_i - 1,
    IDCG = the sum at the ranks of descending y.

    A query whose targets all tie adds 0: no order is better than another.

    Source: Qin et al. 2010, A General Approximation Framework for Direct Optimization of
    Information Retrieval Measures.
    Bounds: 0, neared as the best order holds by ever more T, to below 1. The gradient vanishes for
    scores many T apart, also where they are in the wrong order.

    Example: s = (0, ln 3), y = (2, 1), T = 1, r = (7/4, 5/4). Linear gains are 2 and 1,
    L = 1 - (2 / log2(11/4) + 1 / log2(9/4)) / (2 / log2(2) + 1 / log2(3)) = 0.15423. Exponential
    ones are 3 and 1, L = 0.19846.
    """

    type: Literal["approx_ndcg"] = "approx_ndcg"
    temperature: float = Field(0.1, gt=0)
    """Divides the score differences; lower nears the true ranks and flattens the loss."""

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        share_QD = _gain_shares(targets_QD, self.gain)
        ranks_QD = soft_ranks(scores_QD, mask_QD, self.temperature)
        ndcg_Q = (share_QD * _discount(ranks_QD)).sum(1)
        return torch.where(ordered(targets_QD, mask_QD).any((1, 2)), 1.0 - ndcg_Q, 0.0)


class Lambda(_OfGains):
    """LambdaRank: RankNet with every pair weighted by the nDCG that swapping it would change.

    L_q = sum over {(i, j): y_i > y_j} of delta_ij * softplus(-(s_i - s_j)),
    delta_ij = |g_i - g_j| * |1 / log2(1 + rank_i) - 1 / log2(1 + rank_j)| / IDCG,
    g_i = y_i or 2^y_i - 1, IDCG = sum of g_i / log2(1 + rank) at the ranks of descending y,
    softplus(x) = ln(1 + e^x).

    Ranks are those of the student's scores and carry no gradient. Among equal scores a document of
    lower target stands first, the worst case, so that a student of constant scores learns; where
    the targets tie too, documents share their mean rank.

    Source: Burges et al. 2006, Learning to Rank with Nonsmooth Cost Functions; as a loss, Wang et
    al. 2018, The LambdaLoss Framework for Ranking Metric Optimization.
    Bounds: above 0; unbounded as a pair is ever more wrong. It jumps where two scores swap.

    Example: s = (0, ln 3), y = (2, 1), so the ranks are 2 and 1 and the pair loses ln(1 + 3).
    Linear gains are 2 and 1, IDCG = 2 + 1 / log2(3), delta = (1 - 1 / log2(3)) / IDCG = 0.14028,
    L = 0.19447. Exponential ones are 3 and 1, delta = 0.20329, L = 0.28182.
    """

    type: Literal["lambda"] = "lambda"

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        pairs_QDD = ordered(targets_QD, mask_QD)
        discount_QD = _discount(ranks(_before(scores_QD, pairs_QDD, mask_QD), mask_QD))
        share_QD = _gain_shares(targets_QD, self.gain)
        delta_QDD = (margins(share_QD) * margins(discount_QD)).abs()
        loss_QDD = delta_QDD * softplus(-margins(scores_QD))
        return torch.where(pairs_QDD, loss_QDD, 0.0).sum((1, 2))


def _before(scores_QD: Tensor, pairs_QDD: Tensor, mask_QD: Tensor) -> Tensor:
    """True where i stands before j: by higher score, then by lower target."""
    s_i, s_j = scores_QD.unsqueeze(2), scores_QD.unsqueeze(1)
    return usable_pairs(mask_QD) & ((s_i > s_j) | ((s_i == s_j) & pairs_QDD.transpose(1, 2)))


def _discount(ranks_QD: Tensor) -> Tensor:
    return 1.0 / torch.log2(1.0 + ranks_QD)


def no_gain(low: float, high: float, gain: Gain) -> str | None:
    """Why targets from low to high are no gains; None if they are."""
    if low < 0:
        return (
            f"a gain expects targets of at least 0, found {low:g}; use a teacher of grades or "
            "probabilities, or a loss of the order alone: listmle, ranknet, adr_mse"
        )
    if gain == "exponential" and high > 10:
        return (
            f"gain=exponential expects targets up to 10, found {high:g}, a gain of 2^{high:g}; "
            "use gain=linear or a teacher of grades"
        )
    return None


def _gain_shares(targets_QD: Tensor, gain: Gain) -> Tensor:
    """Gain over IDCG, float32, from targets that are 0 under the mask; 0 where nothing gains.

    Raises:
        ValueError: a target is negative, or too large for the exponential gain.
    """
    if problem := no_gain(float(targets_QD.min()), float(targets_QD.max()), gain):
        raise ValueError(problem)
    gains_QD = torch.exp2(targets_QD) - 1 if gain == "exponential" else targets_QD
    places_D = torch.arange(1, gains_QD.shape[1] + 1, device=gains_QD.device)
    ideal_Q1 = (gains_QD.sort(1, descending=True).values * _discount(places_D)).sum(1, keepdim=True)
    return (gains_QD / torch.where(ideal_Q1 > 0, ideal_Q1, 1.0)).float()
