"""Losses over the whole list of one query.

Shapes: Q queries of the batch, D documents per group.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from raypipe.losses.base import Loss, Targets, masked_mean


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
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Divides the scores; below 1 sharpens the softmax."""

    @property
    def uses(self) -> Targets:
        return "labels"

    @property
    def needs_positive(self) -> bool:
        return True

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, positive_QD: Tensor | None
    ) -> Tensor:
        positive_QD = mask_QD & (targets_QD > 0)
        negative_QD = mask_QD & ~positive_QD
        logits_QD = scores_QD / self.temperature
        # Not -inf: logsumexp's backward is NaN for a query without negatives (anomaly mode stops).
        lowest = torch.finfo(logits_QD.dtype).min
        negatives_Q1 = torch.where(negative_QD, logits_QD, lowest).logsumexp(1, keepdim=True)
        # -ln(e^a / (e^a + e^b)) = softplus(b - a)
        return masked_mean(softplus(negatives_Q1 - logits_QD), positive_QD, dim=1)
