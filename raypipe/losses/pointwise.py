"""Losses over single documents, so that a score has a meaning beyond its query.

Shapes: Q queries of the batch, D documents per group.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from raypipe.losses.base import Known, Loss, TeacherKind, masked_mean


class BCE(Loss):
    """Binary cross-entropy: the sigmoid of a score is the probability of being relevant.

    L_q = mean over documents of softplus(-s) where y > 0 and softplus(s) where y = 0,
    softplus(x) = ln(1 + e^x).

    A group of negatives alone has a loss, too; a shift of all scores changes the loss.

    Source: Nogueira and Cho 2019, Passage Re-ranking with BERT, arXiv 1901.04085 (equation 1, as a
    mean over the documents).
    Bounds: above 0; ln 2 when all scores are 0; unbounded as a document is ever more wrong.

    Example: s = (ln 3, 0, -ln 3), the first is positive. The documents lose ln(1 + 1/3), ln(2) and
    ln(1 + 1/3), L = ln(4/3 * 2 * 4/3) / 3 = 0.42284.
    """

    type: Literal["bce"] = "bce"

    @property
    def needs_positive(self) -> bool:
        return False

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        wrong_QD = torch.where(targets_QD > 0, -scores_QD, scores_QD)
        return masked_mean(softplus(wrong_QD), mask_QD, dim=1)


class MSE(Loss):
    """Mean squared error: the student's scores should equal the teacher's, scale and all.

    L_q = mean over documents of (s - t)^2.

    Source: regression on scores; margin_mse asks for the differences alone.
    Bounds: 0, at the teacher's scores, to infinity.

    Example: s = (2, 1, 0), t = (5, 1, 4). L = (9 + 0 + 16) / 3 = 25/3.
    """

    teacher_kinds: ClassVar[frozenset[TeacherKind]] = frozenset({"score"})

    type: Literal["mse"] = "mse"

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        return masked_mean((scores_QD - targets_QD.float()).square(), mask_QD, dim=1)
