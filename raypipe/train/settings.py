"""The settings of one stage's training; what names the stage's groups stands in raypipe.stages."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from raypipe.config import NOT_SEMANTIC, UNLESS_DEFAULT, Config
from raypipe.losses import AnyLoss
from raypipe.train.filtering import Filtering
from raypipe.train.objective import AnyObjective
from raypipe.train.optimizers import AdamW, AnyOptimizer
from raypipe.train.schedules import Linear, Schedule


class Freeze(Config):
    """Weights that a stage leaves as they are; dropout stays active in them."""

    embeddings: bool = False
    """All tables before the first layer."""
    position_embeddings: bool = False
    """The table of absolute positions; nothing where the backbone has none."""
    layers: int = Field(0, ge=0)
    """The first n layers."""


class EarlyStopping(Config):
    """End a stage whose validation no longer improves; the best checkpoint is kept either way."""

    patience: int = Field(2, ge=1)
    """Validations in a row without improvement after which the stage ends."""
    min_delta: float = Field(0.0, ge=0)
    """An improvement is more than this above the value that last counted as one; of a loss, below.
    """


LOSS = "loss"
"""The name of the validation loss where measures have theirs; lower is better."""
INSTEAD = {"steps": "epochs", "warmup_steps": "warmup", "validate_every": "validations"}
"""A setting, and the one that is not used where it is set."""


class TrainingSettings(Config):
    """One objective, and how the loop fits a model to it.

    The optimizer begins anew in every stage: moments of another objective's gradients, at another
    rate, say little about the gradients of this objective.
    """

    loss: AnyLoss
    """What is minimised: a loss over the scores of a group."""
    objective: Annotated[AnyObjective | None, UNLESS_DEFAULT] = None
    """What is minimised instead where scores are not enough, `my_package.module:Class`, alone or as
    the `type` of a mapping with its fields; it is given the loss. See docs/plug-ins.md."""
    optimizer: Annotated[AnyOptimizer, UNLESS_DEFAULT] = AdamW()
    """What takes the steps; AdamW unless it is one of your own."""
    limit: int | None = Field(None, ge=1)
    """Use only the first n groups; None uses all."""
    lr: float = Field(2e-5, gt=0, lt=1)
    """Highest learning rate."""
    schedule: Schedule = Linear()
    """How the rate goes on after the warm-up."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps over which the rate rises; not used if `warmup_steps` is set."""
    warmup_steps: int | None = Field(None, ge=0)
    """Steps over which the rate rises."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's weight decay, on matrices only."""
    betas: tuple[
        Annotated[float, Field(ge=0, lt=1)],
        Annotated[float, Field(ge=0, lt=1)],
    ] = (0.9, 0.999)
    """AdamW's decay of the mean and of the mean square of the gradients."""
    eps: float = Field(1e-8, gt=0)
    """AdamW adds this to the root of the mean square."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    freeze: Freeze = Freeze()
    """What is not trained."""
    filtering: Filtering | None = None
    """Leave out groups that the model already ranks well; None trains on all."""
    queries_per_step: int = Field(16, ge=1)
    """Global batch: queries per optimizer step, over all workers."""
    epochs: float = Field(1.0, gt=0, le=1e6)
    """Passes over the groups; not used if `steps` is set."""
    steps: int | None = Field(None, ge=1, le=100_000_000)
    """Optimizer steps."""
    validations: int = Field(3, ge=1, le=100_000)
    """How often validation runs, evenly spread, the last one after the last step."""
    validate_every: int | None = Field(None, ge=1)
    """Validate every n steps and after the last one, instead of `validations` times."""
    early_stopping: EarlyStopping | None = None
    """None runs all steps. Stopping early does not shorten the schedule of the learning rate."""
    checkpoint_every: Annotated[int | None, NOT_SEMANTIC, Field(ge=1)] = None
    """Save every n steps what a restart goes on from. None saves at the first report (20 per stage)
    or validation that comes 5 minutes after the last save: a shorter stage is begun again."""
    checkpoints_kept: Annotated[int, NOT_SEMANTIC, Field(ge=1)] = 2
    """How many of these checkpoints remain; a stage that is finished keeps none."""
    gradient_checkpointing: Annotated[bool, NOT_SEMANTIC] = False
    """Compute activations again in the backward pass: less memory, about 1.3 times the time."""
    dropout_tokens: Annotated[int, NOT_SEMANTIC, Field(ge=64)] = 4_096
    """Tokens whose activations are in memory at a time where the model has dropout, instead of
    `resources.micro_batch_tokens`. Dropout draws per padded batch, so that this number decides the
    weights: it is in the digest of stages with dropout, and of no others. At least one pair is in
    memory. 32,768 is faster on GPUs."""
    compile: Annotated[bool, NOT_SEMANTIC] = False
    """torch.compile the model: equal up to rounding, minutes of start-up."""
    deterministic: Annotated[bool, NOT_SEMANTIC] = False
    """On GPUs, use only kernels that give the same bits every time, which are slower; on CPU all
    do. An interrupted stage then ends with the weights of an uninterrupted one."""

    @model_validator(mode="after")
    def _a_step_is_full(self) -> TrainingSettings:
        if self.limit is not None and self.limit < self.queries_per_step:
            raise ValueError(f"limit: {too_few(self.limit, self.queries_per_step)}")
        return self

    @model_validator(mode="after")
    def _objective_reads_blocks(self) -> TrainingSettings:
        if self.objective is not None and self.filtering is not None:
            raise ValueError(
                "filtering: compares the losses of queries, and an objective gives one value for a "
                "block; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _patience_can_run_out(self) -> TrainingSettings:
        stopping = self.early_stopping
        if stopping is None or self.validate_every is not None:
            return self
        if self.validations < stopping.patience + 2:
            raise ValueError(
                f"early_stopping.patience: one validation and {stopping.patience} without "
                f"improvement end no stage of validations={self.validations} early; raise "
                "validations, lower patience, or set validate_every"
            )
        return self

    def total_steps(self, groups: int) -> int:
        """Optimizer steps on `groups` groups; steps are always full, a rest begins no step."""
        return self.steps or max(int(self.epochs * groups / self.queries_per_step), 1)

    def rise(self, total: int) -> int:
        """How many of the `total` steps belong to the warm-up."""
        if self.warmup_steps is not None:
            return min(self.warmup_steps, total)
        return int(self.warmup * total)

    def validation_steps(self, total: int) -> set[int]:
        """The steps (from 1) after which validation runs; the last step is always among them."""
        if self.validate_every is not None:
            return {*range(self.validate_every, total, self.validate_every), total}
        return {-(-total * (i + 1) // self.validations) for i in range(self.validations)}


def too_few(groups: int, per_step: int) -> str:
    """Words of the error for fewer groups than a step takes."""
    return (
        f"{groups:,} groups are fewer than one step of queries_per_step={per_step} takes, so that "
        "it would repeat them; lower queries_per_step, or use more groups"
    )


LEAST_PATH = 1e-3
"""Steps times lr, which AdamW moves a weight by at most: below it nothing changes; a usual training
has 1e-2 and more."""
ENOUGH_STEPS = 50
"""Steps that are never called too few."""


def too_short(name: str, settings: TrainingSettings, groups: int) -> str | None:
    """A sentence on a stage with too few optimizer steps to move its weights; None if it has some.

    Args:
        name: of the stage.
        groups: at most, before `limit`.
    """
    used = min(groups, settings.limit or groups)
    steps = settings.total_steps(used)
    if steps >= ENOUGH_STEPS or settings.lr * steps >= LEAST_PATH:
        return None
    size = "" if settings.steps else f" ({used:,} groups, {settings.queries_per_step} per step)"
    plural = "step" if steps == 1 else "steps"
    return (
        f"stages.{name}: {steps} optimizer {plural}{size} at lr {settings.lr:g}: too few to move "
        "the weights; lower queries_per_step, raise epochs, or set steps to some hundreds"
    )
