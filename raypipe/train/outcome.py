"""What a stage did, as numbers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """What a stage did; the model holds the best weights afterwards."""

    history: list[dict[str, float]] = field(default_factory=list)
    """One row per step: step, loss, lr, grad_norm, pairs, tokens; validation rows: step, val/...;
    kept, with a filter: queries trained on; overflow 1 instead of grad_norm: fp16 left it out."""
    best_step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    """Fewer than planned if early stopping ended the stage."""
    pairs: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """Of the work that led here; what an interruption lost is not in it."""
    resumed_from: list[int] = field(default_factory=list)
    """The steps after which interrupted runs were continued."""
    alarms: list[str] = field(default_factory=list)
    """What Alarms said."""
    filtering: dict[str, float | None] = field(default_factory=dict)
    """What the filter left out: `LossFilter.summary`."""
