"""The settings of one training stage."""

from __future__ import annotations

from pydantic import Field

from raypipe.config import Config
from raypipe.data.groups import Groups
from raypipe.losses import AnyLoss


class StageConfig(Config):
    """One objective, trained on one groups artifact, with an optimizer of its own."""

    loss: AnyLoss
    """The objective."""
    groups: Groups | None = None
    """None: the recipe's `groups`, shared by all stages that do not say otherwise."""
    limit: int | None = Field(None, ge=1)
    """Use only the first n groups; None uses all."""
    lr: float = Field(2e-5, gt=0, lt=1)
    """Highest learning rate."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's, on matrices only."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps over which the rate rises; afterwards it falls linearly to 0."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    queries_per_step: int = Field(16, ge=1)
    """Global batch: queries per optimizer step, over all workers."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the groups; not used if `steps` is set."""
    steps: int | None = Field(None, ge=1)
    """Optimizer steps."""
    validations: int = Field(3, ge=1)
    """How often validation runs, evenly spread, the last one after the last step."""

    def total_steps(self, groups: int) -> int:
        """Optimizer steps on `groups` groups; batches are always full, a rest begins no step."""
        return self.steps or max(int(self.epochs * groups / self.queries_per_step), 1)
