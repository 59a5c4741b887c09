"""The optimizer of a stage, and its rate at every step."""

from __future__ import annotations

import pytest
import torch
from tiny_training import STAGE

from raypipe.losses.listwise import InfoNCE
from raypipe.train.optim import build_optimizer, rate
from raypipe.train.schedules import Constant
from raypipe.train.settings import TrainingSettings


def test_warm_up_in_steps_replaces_the_share():
    stage = TrainingSettings(
        loss=InfoNCE(), lr=0.8, warmup=0.5, warmup_steps=4, schedule=Constant()
    )
    assert [rate(stage, s, 8) for s in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert stage.rise(2) == 2  # a short stage
    assert stage.replace(warmup_steps=None).rise(8) == 4


def test_the_optimizer_gets_its_settings():
    stage = TrainingSettings(loss=InfoNCE(), betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3)
    matrices, rest = build_optimizer(torch.nn.Linear(3, 2), stage).param_groups
    assert matrices["weight_decay"] == 0.3 and rest["weight_decay"] == 0
    assert [p.shape for p in matrices["params"]] == [(2, 3)]
    for group in (matrices, rest):
        assert group["betas"] == (0.8, 0.95) and group["eps"] == 1e-6


def test_nothing_left_to_train():
    model = torch.nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(ValueError, match="freeze: no weight is left to train"):
        build_optimizer(model, STAGE)
