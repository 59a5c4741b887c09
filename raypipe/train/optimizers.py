"""What takes the optimizer's steps: AdamW, or one of the user's own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

import torch

from raypipe.config import Config
from raypipe.plugins.choice import OrPlugIn


class StageRates(Protocol):
    """What an optimizer may read of its stage's settings."""

    lr: float
    """Highest learning rate; the schedule sets every group's `lr` before each step."""
    betas: tuple[float, float]
    eps: float


class OptimizerBase(Config):
    """Base of every optimizer: `build` makes it anew for each stage."""

    type: str = ""
    """Declared here, so that recipes are printed with `type` first."""

    @abstractmethod
    def build(
        self, groups: Sequence[Mapping[str, Any]], stage: StageRates
    ) -> torch.optim.Optimizer:
        """A torch optimizer over these parameter groups, each with `params` and `weight_decay`.

        Its state must be tensors or numbers per parameter: that is what a checkpoint keeps.
        """


class AdamW(OptimizerBase):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), with the stage's
    `betas`, `eps` and `weight_decay`."""

    type: Literal["adamw"] = "adamw"

    def build(
        self, groups: Sequence[Mapping[str, Any]], stage: StageRates
    ) -> torch.optim.Optimizer:
        plain = [dict(group) for group in groups]
        return torch.optim.AdamW(plain, lr=stage.lr, betas=stage.betas, eps=stage.eps, fused=True)


AnyOptimizer = Annotated[AdamW, OrPlugIn("optimizer", OptimizerBase)]
