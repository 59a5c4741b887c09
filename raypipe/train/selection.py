"""Keeps the weights of the best validation, and says when early stopping ends the stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from raypipe.train.parallel import bare
from raypipe.train.settings import LOSS, EarlyStopping


@dataclass
class Selection:
    """The best validation so far with its weights, and the patience that is left."""

    key: str
    """The measure that decides, higher is better, or `LOSS`, lower is better."""
    stopping: EarlyStopping | None
    best_step: int = 0
    best: dict[str, float] | None = None
    weights: dict[str, Tensor] | None = None
    """Copies on the model's device, spread as the model is."""
    mark: float = -math.inf
    """The `merit` that last counted as an improvement."""
    stale: int = 0
    """Validations since that improvement."""

    def offer(self, step: int, values: Mapping[str, float], model: nn.Module) -> None:
        """Take one more validation; of equal values the first is kept.

        Step 0, the start, uses up no patience: a stage may fall below its start before it rises.
        """
        value = merit(self.key, values)
        if self.best is None or value > merit(self.key, self.best):
            self.best_step, self.best = step, dict(values)
            self.weights = copy_of(model)
        if step == 0:
            return
        delta = 0.0 if self.stopping is None else self.stopping.min_delta
        if value > self.mark + delta:
            self.mark, self.stale = value, 0
        else:
            self.stale += 1

    @property
    def exhausted(self) -> bool:
        """Whether early stopping ends the stage now."""
        return self.stopping is not None and self.stale >= self.stopping.patience

    def state(self) -> dict[str, Any]:
        """Everything but the weights, as JSON values."""
        mark = None if math.isinf(self.mark) else self.mark
        return {"best_step": self.best_step, "best": self.best, "mark": mark, "stale": self.stale}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; the caller sets `weights`."""
        self.best_step, self.best, self.stale = state["best_step"], state["best"], state["stale"]
        self.mark = -math.inf if state["mark"] is None else state["mark"]


def merit(key: str, values: Mapping[str, float]) -> float:
    """The value by which validations are compared, higher is better: a loss has its sign turned."""
    value = float(values[key])
    return -value if key == LOSS else value


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict on the model's device."""
    return {name: value.detach().clone() for name, value in bare(model).state_dict().items()}


@dataclass
class TrainingOutcome:
    """What a stage did; the model holds the best weights afterwards."""

    history: list[dict[str, float]] = field(default_factory=list)
    """Rows of steps hold step, loss, lr, grad_norm, pairs, tokens; of bi-encoders also texts, the
    distinct ones of each block; with a loss over the step masked, documents that are neither
    positives nor negatives of a query; with a filter kept, the queries trained on; with fp16
    overflow 1 instead of grad_norm, where the step was left out. Rows of validations hold step and
    val/MEASURE."""
    best_step: int = 0
    """0: no validation was better than that of the start."""
    best: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    """Fewer than planned if early stopping ended the stage."""
    pairs: int = 0
    tokens: int = 0
    texts: int = 0
    """Of bi-encoders, else 0."""
    masked: int = 0
    """Of losses over the step, else 0."""
    seconds: float = 0.0
    """Duration of the steps that led here, without steps that an interruption lost."""
    resumed_from: list[int] = field(default_factory=list)
    """The steps after which interrupted runs were continued."""
    alarms: list[str] = field(default_factory=list)
    """`Alarms.messages`."""
    filtering: dict[str, float | None] = field(default_factory=dict)
    """`LossFilter.summary`: what the filter left out."""
