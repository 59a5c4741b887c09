"""The classifier of hard groups against an oracle, and its features by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from raypipe.train.predictor import FEATURES, Logistic, group_features


def test_logistic_agrees_with_a_gradient_descent():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 2)) * [1.0, 5.0] + [3.0, 0.0]
    y = rng.random(300) < 1 / (1 + np.exp(-(x[:, 0] - 3)))
    w = rng.random(300) + 0.5
    model = Logistic.fit(x, y, w)
    inputs = torch.from_numpy(model._inputs(x))
    solution = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([solution], max_iter=200, line_search_fn="strong_wolfe")
    penalty = torch.tensor([1.0, 1.0, 1e-3], dtype=torch.float64)

    def objective():
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(
            inputs @ solution,
            torch.from_numpy(y).double(),
            torch.from_numpy(w),
            reduction="sum",
        )
        loss = loss + (penalty * solution**2).sum() / 2
        loss.backward()
        return loss

    optimizer.step(objective)
    assert model.weights_F == pytest.approx(solution.detach().numpy(), abs=1e-4)
    chance = model.probability(x)
    assert model.log_loss(x, y) == pytest.approx(-np.log(np.where(y, chance, 1 - chance)))


def test_logistic_bears_separable_and_constant_columns():
    x = np.column_stack([np.repeat([0.0, 1.0], 50), np.full(100, 7.0)])
    y = x[:, 0] > 0
    model = Logistic.fit(x, y, np.ones(100))
    assert np.isfinite(model.weights_F).all()
    assert ((model.probability(x) > 0.5) == y).all()
    one_class = Logistic.fit(x, np.ones(100, dtype=bool), np.ones(100))
    assert (one_class.probability(x) > 0.9).all()


def test_group_features_by_hand():
    values = group_features(
        query_tokens=3,
        doc_tokens_D=np.array([7, 15, 31]),
        positive_D=np.array([True, False, False]),
        ranks_D=np.array([1, 3, 0]),
        teacher_D=np.array([5.0, 2.0, np.nan]),
    )
    ln2 = np.log(2)
    named = dict(zip(FEATURES, values, strict=True))
    assert named == pytest.approx(
        {
            "query_tokens": 2 * ln2,
            "mean_doc_tokens": 4 * ln2,
            "positive_doc_tokens": 3 * ln2,
            "documents": 2 * ln2,
            "best_positive_rank": ln2,
            "positive_not_retrieved": 0.0,
            "mean_negative_rank": 2 * ln2,
            "teacher_margin": 3.0,
            "teacher_spread": 1.5,
        }
    )
    nothing = group_features(0, np.array([0]), np.array([True]), np.array([0]))
    assert dict(zip(FEATURES, nothing, strict=True))["positive_not_retrieved"] == 1.0
    assert np.isfinite(nothing).all()
