"""Losses over the whole list of one query: the softmax of its scores.

Shapes: Q queries of the batch, D documents per group.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import softplus

from raypipe.config import UNLESS_DEFAULT
from raypipe.losses.base import Known, Loss, Targets, TeacherKind, masked_mean
from raypipe.losses.order import ordered

Over = Literal["group", "step"]
"""Which documents a loss reads: those of the query's group, or all of an optimizer step."""


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
    over: Annotated[Over, UNLESS_DEFAULT] = "group"
    """step: the negatives are the documents of all queries of the optimizer step (in-batch
    negatives), less those that are relevant for the query or have the text of such a document; for
    bi-encoders."""
    positive: Annotated[Literal["judged", "teacher_top"], UNLESS_DEFAULT] = "judged"
    """Of a loss over the step: judged takes the positives of the group, as over the group; of a
    synthetic query that is the passage it was written for. teacher_top takes the one document of
    the group that the teacher puts first; of equal values the group's first, so a positive before a
    negative. Judged documents are no negatives either way."""
    own_share: Annotated[float | None, UNLESS_DEFAULT] = Field(None, gt=0, le=1)
    """Of a loss over the step: documents of the query's own groups that the teacher gives more than
    this share of their highest value are no negatives of the query, nor are their copies; .6 in
    CADET. Values must be on [0, 1]: those of `filter.lists`, or of an ensemble with `normalise:
    min_max`. Null keeps all; a document without a value stays a negative."""

    @model_validator(mode="after")
    def _of_the_step(self) -> InfoNCE:
        given = {"positive": self.positive != "judged", "own_share": self.own_share is not None}
        for name, is_given in given.items():
            if is_given and self.over == "group":
                raise ValueError(
                    f"{name}: found {getattr(self, name)} in a loss over the group, where labels "
                    "decide; set over=step, or leave it out"
                )
        return self

    @property
    def uses(self) -> Targets:
        by_teacher = self.positive == "teacher_top" or self.own_share is not None
        return "teacher" if by_teacher else "labels"

    @property
    def teacher_kinds(self) -> frozenset[TeacherKind]:  # type: ignore[override]
        if self.uses == "labels":
            return frozenset()
        if self.own_share is not None:
            return frozenset({"score"})
        return frozenset({"score", "rank"})

    @property
    def needs_positive(self) -> bool:
        return self.positive == "judged"

    def refuses(self, column: Targets, low: float, high: float) -> str | None:
        if self.own_share is None or column == "labels" or 0 <= low <= high <= 1:
            return None
        return (
            f"own_share={self.own_share:g} expected the teacher's values on [0, 1], found "
            f"{low:.6g} to {high:.6g}; scale them, or leave own_share out"
        )

    def of_equal_scores(self, documents: int) -> float | None:
        return math.log(documents) if self.over == "group" else None

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
    over: Annotated[Over, UNLESS_DEFAULT] = "group"
    """step: over all documents of the optimizer step that have a value of the teacher for the
    query, from whichever group; for bi-encoders."""

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
