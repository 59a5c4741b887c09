"""AdamW, and the rate it steps with."""

from __future__ import annotations

import torch
from torch import nn

from raypipe.train.settings import TrainingSettings


def build_optimizer(model: nn.Module, stage: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW over what is not frozen; biases and norms do not decay.

    Raises:
        ValueError: everything is frozen.
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise ValueError("freeze: no weight is left to train; freeze fewer layers")
    groups = [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": stage.weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=stage.lr, betas=stage.betas, eps=stage.eps, fused=True)


def rate(stage: TrainingSettings, step: int, total: int) -> float:
    """The learning rate of `step` (from 0): a function of the position alone, so it needs no state.

    >>> from raypipe.losses import InfoNCE
    >>> stage = TrainingSettings(loss=InfoNCE(), lr=0.8, warmup=0.2)
    >>> [round(rate(stage, s, 10), 3) for s in (0, 1, 2, 6, 9)]
    [0.4, 0.8, 0.8, 0.4, 0.1]
    """
    return stage.lr * stage.schedule.factor(step, total, stage.rise(total))


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
