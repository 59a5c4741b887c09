"""Optimizers of one's own: what they must give, and that a stage goes on with their state."""

from __future__ import annotations

import pytest
import torch
from tiny_training import STAGE, column, fit, same, weights

from raypipe.train.optimizers import AdamW, OptimizerBase


class Momentum(OptimizerBase):
    """Its state is a tensor per weight."""

    def build(self, groups, stage):
        return torch.optim.SGD([dict(g) for g in groups], lr=stage.lr, momentum=0.9)


class Answers(OptimizerBase):
    """Whatever a test wants."""

    what: str

    def build(self, groups, stage):
        if self.what == "none":
            return None
        if self.what == "half":
            return torch.optim.SGD([dict(groups[0])], lr=stage.lr)
        optimizer = torch.optim.SGD([dict(g) for g in groups], lr=stage.lr)
        for group in groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["count"] = 7 if self.what == "numbers" else "seven"
        return optimizer


def staged(optimizer: OptimizerBase, **changes):
    """A stage whose optimizer is of no package."""
    return STAGE.replace(lr=0.05, steps=6, **changes).model_copy(update={"optimizer": optimizer})


@pytest.mark.parametrize("optimizer", [Momentum(type="x"), Answers(type="x", what="numbers")])
def test_an_interrupted_stage_ends_as_an_uninterrupted_one(data, tiny_backbone, optimizer):
    saved = {}
    stage = staged(optimizer, checkpoint_every=1)
    whole, first, _ = fit(data, tiny_backbone, stage, dropout=0.1, save=saved.__setitem__)
    again, second, _ = fit(data, tiny_backbone, stage, dropout=0.1, resume=saved[3])
    assert column(whole, "loss") == column(again, "loss")
    assert same(weights(first), weights(second)) and again.resumed_from == [3]


def test_the_schedule_sets_the_rate(data, tiny_backbone):
    outcome, *_ = fit(data, tiny_backbone, staged(Momentum(type="x")))
    rates, norms = column(outcome, "lr"), column(outcome, "grad_norm")
    assert rates[0] == 0.05 and rates == sorted(rates, reverse=True) and min(norms) > 0


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("none", "optimizer x: expected a torch.optim.Optimizer from build, found NoneType"),
        ("half", "optimizer x: expected all weights that are trained, it has no "),
        (
            "text",
            "optimizer: expected tensors or numbers as state of a weight, found str as 'count'",
        ),
    ],
)
def test_what_is_no_optimizer_is_refused(data, tiny_backbone, what, words):
    stage = staged(Answers(type="x", what=what), checkpoint_every=1)
    with pytest.raises(ValueError, match=words):
        fit(data, tiny_backbone, stage, save=lambda step, snapshot: None)


def test_the_default_is_adamw_with_the_stage_s_fields():
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    groups = [{"params": [parameter], "weight_decay": 0.3}]
    built = AdamW().build(groups, STAGE.replace(betas=(0.8, 0.7), eps=1e-6))
    (group,) = built.param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.7), 1e-6, 0.3)
