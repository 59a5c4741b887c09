"""A small classifier of groups that the model finds hard, from figures known before it reads them.

Shapes: Q queries, N examples, F features, D documents of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FEATURES = (
    "query_tokens",
    "mean_doc_tokens",
    "positive_doc_tokens",
    "documents",
    "best_positive_rank",
    "positive_not_retrieved",
    "mean_negative_rank",
    "teacher_margin",
    "teacher_spread",
)
"""What `group_features` gives, in order."""


@dataclass(frozen=True)
class Logistic:
    """P(hard) = sigmoid(b + w . (features - mean) / scale), fitted by ridge-penalised Newton."""

    mean_F: Array
    scale_F: Array
    weights_F: Array
    """The weights w, and b as the last."""

    @classmethod
    def fit(cls, features_NF: Array, hard_N: Array, weights_N: Array) -> Logistic:
        """The maximum of the weighted likelihood with w ~ Normal(0, 1).

        Fitted from scratch, so that the result depends on these examples alone.
        """
        mean = np.average(features_NF, axis=0, weights=weights_N)
        scale = np.sqrt(np.average((features_NF - mean) ** 2, axis=0, weights=weights_N))
        model = cls(mean, np.where(scale > 1e-9, scale, 1.0), np.zeros(len(mean) + 1))
        inputs = model._inputs(features_NF)
        penalty = np.append(np.ones(len(mean)), 1e-3)  # b is hardly held back
        solution = model.weights_F
        for _ in range(10):
            chance = _sigmoid(inputs @ solution)
            gradient = inputs.T @ (weights_N * (hard_N - chance)) - penalty * solution
            curvature = weights_N * np.maximum(chance * (1 - chance), 1e-6)
            hessian = (inputs * curvature[:, None]).T @ inputs + np.diag(penalty)
            step = np.linalg.solve(hessian, gradient)
            solution = solution + step / max(1.0, float(np.abs(step).max()) / 2)
        return cls(model.mean_F, model.scale_F, solution)

    def probability(self, features_QF: Array) -> Array:
        """[Q] chance that the loss reaches the threshold, strictly between 0 and 1."""
        return _sigmoid(self._inputs(features_QF) @ self.weights_F)

    def log_loss(self, features_QF: Array, hard_Q: Array) -> Array:
        """[Q] -ln of the probability of what came true."""
        chance = self.probability(features_QF)
        return -np.log(np.where(hard_Q, chance, 1 - chance))

    def _inputs(self, features_QF: Array) -> Array:
        scaled = np.clip((features_QF - self.mean_F) / self.scale_F, -8, 8)
        return np.column_stack([scaled, np.ones(len(scaled))])

    def state(self) -> list[list[float]]:
        """The constructor's arguments as lists."""
        return [self.mean_F.tolist(), self.scale_F.tolist(), self.weights_F.tolist()]


def _sigmoid(logit: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(logit, -30, 30)))


def group_features(
    query_tokens: int,
    doc_tokens_D: Array,
    positive_D: Array,
    ranks_D: Array,
    teacher_D: Array | None = None,
) -> Array:
    """[F] figures known of a group before any forward pass; 0 where a figure does not exist.

    Args:
        query_tokens: length of the query.
        doc_tokens_D: lengths of the documents.
        positive_D: bool; which documents are positive.
        ranks_D: first-stage ranks, 0 for documents that were not retrieved.
        teacher_D: a teacher's values, higher is better, NaN where the teacher has none.
    """
    lengths = np.log1p(doc_tokens_D)
    positive_D, ranked_D = np.asarray(positive_D, dtype=bool), np.asarray(ranks_D) > 0
    ranks = np.log1p(np.asarray(ranks_D, dtype=np.float64))
    teacher = np.full(len(lengths), np.nan) if teacher_D is None else np.asarray(teacher_D)
    known = np.isfinite(teacher)
    positives, negatives = teacher[known & positive_D], teacher[known & ~positive_D]
    margin = positives.min() - negatives.max() if len(positives) and len(negatives) else 0.0
    best = ranks[positive_D & ranked_D]
    return np.array(
        [
            np.log1p(query_tokens),
            _mean(lengths),
            _mean(lengths[positive_D]),
            np.log1p(len(lengths)),
            best.min() if len(best) else 0.0,
            float(positive_D.any() and not len(best)),
            _mean(ranks[~positive_D & ranked_D]),
            margin,
            teacher[known].std() if known.any() else 0.0,
        ]
    )


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else 0.0
