"""A stage's optimizer over what it trains, and the rate it steps with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from raypipe.train.settings import TrainingSettings


def build_optimizer(model: nn.Module, stage: TrainingSettings) -> torch.optim.Optimizer:
    """The stage's optimizer over what is not frozen; biases and norms do not decay.

    Raises:
        ValueError: everything is frozen, or an optimizer of the user's own leaves weights out.
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise ValueError("freeze: no weight is left to train; freeze fewer layers")
    groups = [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": stage.weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = stage.optimizer.build(groups, stage)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            f"optimizer {stage.optimizer.type}: expected a torch.optim.Optimizer from build, found "
            f"{type(optimizer).__name__}; return one"
        )
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if left := [name for name, p in named if id(p) not in stepped]:
        raise ValueError(
            f"optimizer {stage.optimizer.type}: expected all weights that are trained, it has no "
            f"{', '.join(left[:3])}; build it over all groups, or freeze those"
        )
    return optimizer


def rate(stage: TrainingSettings, step: int, total: int) -> float:
    """The learning rate of `step` (from 0): a function of the position alone, so it needs no state.

    >>> from raypipe.losses import InfoNCE
    >>> from raypipe.train.settings import TrainingSettings
    >>> stage = TrainingSettings(loss=InfoNCE(), lr=0.8, warmup=0.2)
    >>> [round(rate(stage, s, 10), 3) for s in (0, 1, 2, 6, 9)]
    [0.4, 0.8, 0.8, 0.4, 0.1]
    """
    return stage.lr * stage.schedule.factor(step, total, stage.rise(total))


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
