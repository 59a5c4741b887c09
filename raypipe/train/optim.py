"""AdamW with linear warm-up and decay."""

from __future__ import annotations

import torch
from torch import nn

from raypipe.train.settings import StageConfig


def build_optimizer(model: nn.Module, stage: StageConfig) -> torch.optim.Optimizer:
    """AdamW; biases and norms do not decay."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": stage.weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=stage.lr, fused=True)


def lr_factor(step: int, total: int, warmup: float) -> float:
    """Share of the highest rate at `step` (from 0): up over warmup * total steps, then down to 0.

    >>> [round(lr_factor(s, 10, 0.2), 3) for s in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.125]
    """
    rise = int(warmup * total)
    if step < rise:
        return (step + 1) / rise
    return (total - step) / max(total - rise, 1)
