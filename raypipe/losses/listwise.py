"""Losses over the whole list of one query: the softmax of its scores.

Shapes: Q queries of the batch, D documents per group.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from raypipe.losses.base import Known, Loss, Targets, TeacherKind, masked_mean
from raypipe.losses.order import ordered


class InfoNCE(Loss):
    """InfoNCE, or localised contrastive estimation: each positive against its group's negatives.

    L_q = mean over positives p of -ln(e_p / (e_p + sum over negatives n of e_n)),
    where e_i = e^(s_i / T).

    Positives never compete with one another.

    Source: Gao et al. 2021, Rethink Training of BERT Rerankers in Multi-Stage Retrieval Pipeline,
    arXiv 2101.08751.
    Bounds: above 0; ln(1 + number of negatives) when all scores are equal.

    Example: s = (ln 4, ln 2, 0, 0), the first two are positives. At T = 1 they give
    -ln(4 / (4 + 2)) = ln(3/2) and -ln(2 / (2 + 2)) = ln(2), L = ln(3) / 2 = 0.54931. At T = 1/2
    the exponentials are squared: ln(9/8) and ln(3/2), L = ln(27/16) / 2 = 0.26162.
    """

    type: Literal["infonce"] = "infonce"
    temperature: float = Field(1.0, gt=0)
    """Divides the scores; below 1 sharpens the softmax."""

    def of_equal_scores(self, documents: int) -> float | None:
        return math.log(documents)

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        positive_QD = mask_QD & (targets_QD > 0)
        negative_QD = mask_QD & ~positive_QD
        logits_QD = scores_QD / self.temperature
        # Not -inf: logsumexp's backward is NaN for a query without negatives (anomaly mode stops).
        lowest = torch.finfo(logits_QD.dtype).min
        negatives_Q1 = torch.where(negative_QD, logits_QD, lowest).logsumexp(1, keepdim=True)
        # -ln(e^a / (e^a + e^b)) = softplus(b - a)
        return masked_mean(softplus(negatives_Q1 - logits_QD), positive_QD, dim=1)


class ListNet(Loss):
    """ListNet: cross-entropy between the teacher's and the student's softmax.

    L_q = - sum over documents of p_i ln(q_i), p = softmax(t / T), q = softmax(s).

    The gradient is that of kl with teacher_temperature = T; the value is another.

    Source: Cao et al. 2007, Learning to Rank: From Pairwise Approach to Listwise Approach (top-one
    probabilities).
    Bounds: the entropy of p, at s = t / T + constant, to infinity; 0 for one document.

    Example: s = (0, ln 3), t = (ln 3, 0), q = (1/4, 3/4). At T = 1 p = (3/4, 1/4) and
    L = 3/4 ln(4) + 1/4 ln(4/3) = 1.11164. At T = 1/2 p = (9/10, 1/10) and
    L = 9/10 ln(4) + 1/10 ln(4/3) = 1.27643.
    """

    teacher_kinds: ClassVar[frozenset[TeacherKind]] = frozenset({"score"})

    type: Literal["listnet"] = "listnet"
    temperature: float = Field(1.0, gt=0)
    """Divides the teacher's scores, not the student's; below 1 sharpens p."""

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        p_QD = _log_softmax(targets_QD / self.temperature, mask_QD).exp().float()
        cross_QD = -p_QD * _log_softmax(scores_QD, mask_QD)
        return torch.where(mask_QD, cross_QD, 0.0).sum(1)


class KL(Loss):
    """KL divergence of the student's softmax from the teacher's.

    L_q = sum over documents of p_i ln(p_i / q_i), p = softmax(t / T_t), q = softmax(s / T_s).

    Not multiplied by T_s^2, as in the source: a lower T_s means a larger gradient.

    Source: Tamber et al. 2025, Conventional Contrastive Learning Often Falls Short (CADET),
    arXiv 2505.19274.
    Bounds: 0, at s / T_s = t / T_t + constant, to infinity; 0 for one document.

    Example: s = (0, ln 3), t = (ln 3, 0), p = (3/4, 1/4), q = (1/4, 3/4).
    L = 3/4 ln(3) + 1/4 ln(1/3) = ln(3) / 2 = 0.54931. At T_t = 1/2 p = (9/10, 1/10) and
    L = 9/10 ln(18/5) + 1/10 ln(2/15) = 0.95135. At T_s = 1/2 q = (1/10, 9/10) and
    L = 3/4 ln(15/2) + 1/4 ln(5/18) = 1.19094.
    """

    teacher_kinds: ClassVar[frozenset[TeacherKind]] = frozenset({"score"})

    type: Literal["kl"] = "kl"
    teacher_temperature: float = Field(1.0, gt=0)
    """Divides the teacher's scores: T_t."""
    temperature: float = Field(1.0, gt=0)
    """Divides the student's scores: T_s."""

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        log_p_QD = _log_softmax(targets_QD / self.teacher_temperature, mask_QD).float()
        log_q_QD = _log_softmax(scores_QD / self.temperature, mask_QD)
        return torch.where(mask_QD, log_p_QD.exp() * (log_p_QD - log_q_QD), 0.0).sum(1)


class ListMLE(Loss):
    """ListMLE: minus the log-likelihood of the targets' order, drawn from the top by softmax.

    L_q = sum over documents i of ln(e^(s_i) + sum over {j: t_j < t_i} of e^(s_j)) - s_i.

    Without ties that is the source's logsumexp over the documents from i on. The source leaves ties
    to the sort; here tied documents never compete with one another, so that their order in the
    batch changes nothing, and a list of ties loses 0. With labels it is infonce summed over the
    positives. As a sum it weighs a long list more than a short one.

    Source: Xia et al. 2008, Listwise Approach to Learning to Rank: Theory and Algorithm.
    Bounds: above 0; the logarithm of D! for D untied documents of equal score; unbounded.

    Example: s = (ln 3, ln 2, 0). With t = (3, 2, 1) the documents lose ln(6/3), ln(3/2) and 0,
    L = ln(3) = 1.09861. With t = (1, 1, 0) they lose ln(4/3), ln(3/2) and 0, L = ln(2) = 0.69315.
    """

    teacher_kinds: ClassVar[frozenset[TeacherKind]] = frozenset({"score", "rank"})

    type: Literal["listmle"] = "listmle"
    targets: Targets = "labels"
    """What orders the documents: relevance labels, or a teacher's scores or ranks."""

    @property
    def uses(self) -> Targets:
        return self.targets

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        below_QDD = ordered(targets_QD, mask_QD)
        lowest = torch.finfo(scores_QD.dtype).min  # not -inf, as in infonce
        rest_QD = torch.where(below_QDD, scores_QD.unsqueeze(1), lowest).logsumexp(2)
        return torch.where(below_QDD.any(2), softplus(rest_QD - scores_QD), 0.0).sum(1)


def _log_softmax(values_QD: Tensor, mask_QD: Tensor) -> Tensor:
    """The logarithm of the softmax over the usable documents; no gradient under the mask."""
    lowest = torch.finfo(values_QD.dtype).min  # not -inf: a query may have no usable document
    return torch.where(mask_QD, values_QD, lowest).log_softmax(1)
