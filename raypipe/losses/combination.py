"""A weighted sum of losses, and the union of the losses that can be summed.

Shapes: Q queries of the batch, D documents per group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from raypipe.config import Config
from raypipe.losses.base import Known, Loss, Targets, TeacherKind
from raypipe.losses.listwise import KL, InfoNCE, ListMLE, ListNet
from raypipe.losses.pairwise import Hinge, RankNet
from raypipe.losses.pointwise import BCE, MSE
from raypipe.losses.preference import MarginMSE, PairKL
from raypipe.losses.rank_based import AdrMSE, ApproxNDCG, Lambda
from raypipe.plugins.choice import OrPlugIn

SingleLoss = (
    BCE
    | MSE
    | Hinge
    | RankNet
    | MarginMSE
    | PairKL
    | InfoNCE
    | ListNet
    | KL
    | ListMLE
    | AdrMSE
    | ApproxNDCG
    | Lambda
)


class Term(Config):
    """One summand."""

    loss: Annotated[SingleLoss, Field(discriminator="type"), OrPlugIn("loss", Loss)]
    """Any loss but another sum."""
    weight: float = Field(1.0, gt=0)
    """Multiplies the loss; to switch a term off, leave it out."""


class WeightedSum(Loss):
    """Weighted sum: several objectives at once, on the same documents.

    L_q = sum over terms of weight * L_q(term).

    As soon as one term fits a teacher, the sum does: targets and mask are then the teacher's, a
    document without a teacher value is left out of every term, and terms on labels read the labels
    from `Known`. Terms over the step have targets and masks of their own. Either way terms made of
    gains see grades, other label terms see 1 and 0, and a document that is neither positive nor
    negative is in no label term, as with each term alone.

    Source: the recipes of CADET (arXiv 2505.19274), 0.1 infonce + 1.0 kl, and PairDistill (arXiv
    2410.01383), kl + 3.0 pair_kl + in-batch cross-entropy (infonce over the step, `positive:
    teacher_top`).
    Bounds: the weighted sum of the terms' bounds.

    Example: 0.1 infonce + 1.0 kl at s = (0, ln 3), t = (ln 3, 0), the first is positive. They are
    ln(1 + 3) and ln(3) / 2, L = 0.1 ln(4) + ln(3) / 2 = 0.68794.
    """

    type: Literal["weighted_sum"] = "weighted_sum"
    terms: dict[str, Term] = Field(min_length=1)
    """Each term under a name of your own, which gives it the dotted key `loss.terms.NAME.weight`.
    """

    @property
    def teacher_kinds(self) -> frozenset[TeacherKind]:  # type: ignore[override]
        """Teachers that every term on a teacher can fit; empty if no term fits one."""
        kinds = [t.loss.teacher_kinds for t in self.terms.values() if t.loss.uses == "teacher"]
        return frozenset[TeacherKind].intersection(*kinds) if kinds else frozenset()

    @property
    def compares(self) -> bool:  # type: ignore[override]
        return any(t.loss.compares for t in self.terms.values())

    @property
    def graded(self) -> bool:  # type: ignore[override]
        return self.uses == "labels" and any(t.loss.graded for t in self.terms.values())

    @property
    def uses(self) -> Targets:
        return "teacher" if any(t.loss.uses == "teacher" for t in self.terms.values()) else "labels"

    @property
    def needs_positive(self) -> bool:
        return any(t.loss.needs_positive for t in self.terms.values())

    def refuses(self, column: Targets, low: float, high: float) -> str | None:
        problems = (t.loss.refuses(column, low, high) for t in self.terms.values())
        return next(filter(None, problems), None)

    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        total_Q = torch.zeros_like(scores_QD[:, 0])
        labels_QD = None if known is None else known.labels_QD
        if self.uses == "labels":
            labels_QD = targets_QD
        for name, term in self.terms.items():
            fitted_QD, usable_QD = targets_QD, mask_QD
            if term.loss.uses == "labels":
                if labels_QD is None:
                    raise ValueError(
                        f"weighted_sum expected known labels for its term {name!r}, found None; "
                        "pass them, or sum terms on a teacher alone"
                    )
                usable_QD = mask_QD & ~labels_QD.isnan()
                fitted_QD = labels_QD if term.loss.graded else (labels_QD > 0).to(labels_QD.dtype)
            value_Q = term.loss.each(scores_QD, fitted_QD, usable_QD, known)
            total_Q = total_Q + term.weight * value_Q
        return total_Q


@dataclass(frozen=True)
class StepTerm:
    """What a loss has over the documents of a whole optimizer step."""

    loss: Loss
    weight: float = 1.0


def over_group_and_step(loss: Loss) -> tuple[Loss | None, tuple[StepTerm, ...]]:
    """A loss as what it has over each group, None if nothing, and its terms over the step."""
    if not isinstance(loss, WeightedSum):
        return (None, (StepTerm(loss),)) if _over_step(loss) else (loss, ())
    terms = tuple(StepTerm(t.loss, t.weight) for t in loss.terms.values() if _over_step(t.loss))
    rest = {name: term for name, term in loss.terms.items() if not _over_step(term.loss)}
    return (WeightedSum(terms=rest) if rest else None), terms


def _over_step(loss: Loss) -> bool:
    return isinstance(loss, InfoNCE | KL) and loss.over == "step"
