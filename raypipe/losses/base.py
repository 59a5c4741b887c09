"""The contract of a loss: a frozen config whose one verb scores a batch of ranked groups.

Shapes: Q queries of the batch, D documents per group (padded to the longest).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from raypipe.config import Config
from raypipe.losses.order import usable_pairs

Targets = Literal["labels", "teacher"]
"""The column a loss fits: relevance labels (1.0 positive, 0.0 negative) or a teacher's values."""

TeacherKind = Literal["score", "rank"]
"""What a teacher's values are: scores on some scale, or ranks, an order alone."""


class Known(NamedTuple):
    """Figures of the documents beside the targets; few losses read them."""

    labels_QD: Tensor
    """Float: the relevance grade of a positive, 0 of a negative, NaN of what is neither."""
    preferences_QDD: Tensor | None = None
    """A pairwise teacher's probability that i is better than j at [q, i, j], NaN where the teacher
    did not compare them; None without a pairwise teacher."""
    weights_Q: Tensor | None = None
    """How much each query counts, 1 in the mean over the training set; None where all do alike."""


class Loss(Config):
    """Base of every loss: hyper-parameters as fields, what it needs as properties, one formula.

    A subclass writes `per_query`; the call removes what lies under the mask, computes in float32
    and takes the mean over the queries, each weighing the same however many documents or pairs it
    has. A query that cannot carry the loss (no pair, no positive) adds 0 and still counts in Q:
    groups that cannot are refused when they are built, and with a fixed divisor the mean over
    workers with equally many queries is exactly the mean over all queries.
    """

    type: str = ""
    """Declared here, so that recipes are printed with `type` first."""

    teacher_kinds: ClassVar[frozenset[TeacherKind]] = frozenset()
    """Teachers whose values the loss can fit when `uses` is teacher; empty: labels only."""

    compares: ClassVar[bool] = False
    """Whether the loss fits the comparisons of a pairwise teacher, where there are any."""

    graded: ClassVar[bool] = False
    """Labels arrive as relevance grades, 0 for negatives, instead of as 1 and 0."""

    @property
    def uses(self) -> Targets:
        """The column that the training loop hands over; overridden where there is a choice."""
        return "teacher" if self.teacher_kinds else "labels"

    @property
    def needs_positive(self) -> bool:
        """Whether the loss needs a positive and a negative in every group, as most losses on labels
        do, and few on a teacher."""
        return self.uses == "labels"

    def refuses(self, column: Targets, low: float, high: float) -> str | None:
        """Why the loss cannot fit values from low to high in that column; None if it can."""
        return None

    def of_equal_scores(self, documents: int) -> float | None:
        """The loss of a model that ranks nothing: one positive and `documents` - 1 negatives, all
        with one score. None where that depends on more than their number."""
        return None

    @abstractmethod
    def per_query(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None
    ) -> Tensor:
        """The loss of each query, shape Q; 0 where a query cannot carry it.

        Receives float32 scores; scores and targets are 0, labels and preferences NaN wherever the
        mask is False. Targets keep their dtype, so that float64 teacher values are ordered as the
        teacher ordered them.
        """

    def each(
        self, scores_QD: Tensor, targets_QD: Tensor, mask_QD: Tensor, known: Known | None = None
    ) -> Tensor:
        """The loss of each query, shape Q, float32; arguments as for the call."""
        assert scores_QD.shape == targets_QD.shape == mask_QD.shape, "scores, targets, mask differ"
        # NaN * 0 is NaN in both passes, so masked entries are replaced before any arithmetic.
        scores_QD = torch.where(mask_QD, scores_QD.float(), 0.0)
        targets_QD = torch.where(mask_QD, targets_QD, 0)
        known = None if known is None else _usable(known, mask_QD)
        return self.per_query(scores_QD, targets_QD, mask_QD, known)

    def __call__(
        self,
        scores_QD: Tensor,  # the student's; any float dtype
        targets_QD: Tensor,  # higher is better: a teacher's ranks arrive negated
        mask_QD: Tensor,  # bool; True = a real document with a usable target
        known: Known | None = None,  # for margin_mse, pair_kl, and labels beside a teacher
    ) -> Tensor:
        """The mean over the queries of the batch, a float32 scalar; each loss times its query's
        weight, where there are weights.

        Entries under the mask, NaN included, change neither the value nor a gradient.
        """
        losses_Q = self.each(scores_QD, targets_QD, mask_QD, known)
        if known is not None and known.weights_Q is not None:
            assert known.weights_Q.shape == losses_Q.shape, "weights, queries differ"
            losses_Q = losses_Q * known.weights_Q.to(losses_Q.dtype)
        return losses_Q.mean()


def _usable(known: Known, mask_QD: Tensor) -> Known:
    """NaN for whatever lies under the mask."""
    labels_QD, preferences_QDD, weights_Q = known
    assert labels_QD.shape == mask_QD.shape, "labels, mask differ"
    labels_QD = torch.where(mask_QD, labels_QD, math.nan)
    if preferences_QDD is not None:
        pairs_QDD = usable_pairs(mask_QD)
        assert preferences_QDD.shape == pairs_QDD.shape, "preferences, mask differ"
        preferences_QDD = torch.where(pairs_QDD, preferences_QDD, math.nan)
    return Known(labels_QD, preferences_QDD, weights_Q)


def masked_mean(values: Tensor, mask: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Mean of finite `values` where `mask` is True, along `dim`; 0 where it never is."""
    total = torch.where(mask, values, 0.0).sum(dim)
    return total / mask.sum(dim).clamp(min=1)
