"""The training loop: pure torch, one process or several, no Ray.

Without dropout the losses do not depend on the number of workers, up to rounding.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from torch import nn

from raypipe.losses.combination import over_group_and_step
from raypipe.train.alarms import Alarms
from raypipe.train.batches import Batcher
from raypipe.train.optimizer_step import OptimizerSteps
from raypipe.train.parallel import agree, bare, rank_and_world, sharded
from raypipe.train.selection import Selection, TrainingOutcome, copy_of
from raypipe.train.settings import TrainingSettings
from raypipe.train.snapshot import Snapshot, restore, take

if TYPE_CHECKING:
    from raypipe.progress import Say

Validate = Callable[[nn.Module], dict[str, float]]
Report = Callable[[dict[str, Any]], None]
Save = Callable[[int, Snapshot | None], None]
SAVE_AFTER_S = 300.0
"""Without `checkpoint_every` an interruption costs at most this time and a twentieth of the steps.
"""


def train(
    model: nn.Module,
    batcher: Batcher,
    stage: TrainingSettings,
    groups: int,
    *,
    seed: int,
    precision: str,
    selection: str,
    validate: Validate,
    report: Report,
    save: Save | None = None,
    resume: Snapshot | None = None,
    offers_start: bool = False,
    alarms: Alarms | None = None,
    say: Say = lambda sentence: None,
    remember: Callable[[int], None] = lambda tokens: None,
) -> TrainingOutcome:
    """Train one stage and leave the weights with the best validation value in the model.

    A stage that goes on from the snapshot of any step ends with the same bits as one that was not
    interrupted, on CPU, with the same number of workers and the same token budget. With another
    number of workers the data order is the same, dropout is not.

    Args:
        model: possibly wrapped in DistributedDataParallel or sharded; every worker calls this.
        groups: how many groups of the batcher's reader are used.
        selection: the key of `validate`'s result that decides: a measure, higher is better, or
            `LOSS`, lower is better.
        validate: measures the bare model; every worker calls it and gets the same values.
        report: called about 20 times with the new rows of the history, after a resume with all.
        save: called on every worker with the step and a snapshot (None on others than rank 0).
        resume: the snapshot to go on from; the same on every worker.
        offers_start: the weights that the model has now are validated too, as step 0, and stay if
            no later validation is better.
        say: receives, on rank 0, the filter's sentences: when it begins, and at the end; and that
            the device was out of memory.
        remember: told half the token budget that the device had no room for.

    Raises:
        FloatingPointError: a loss or a gradient is NaN or infinite.
        torch.OutOfMemoryError: one pair does not fit into the device's memory, or not a block of
            the token budget where there are several workers.
        ValueError: a step has fewer queries than there are workers, or the snapshot does not fit.
    """
    _check(model, stage)
    heard = say if rank_and_world()[0] == 0 else lambda sentence: None
    steps = OptimizerSteps(
        model,
        batcher,
        stage,
        groups,
        seed=seed,
        precision=precision,
        alarms=alarms,
        say=heard,
        remember=remember,
    )
    chosen = Selection(selection, stage.early_stopping)
    training = Training(steps, chosen, validate, report, save, offers_start)
    if resume is not None:
        training.restore(resume, seed)
    return training.run()


def _check(model: nn.Module, stage: TrainingSettings) -> None:
    world = rank_and_world()[1]
    if stage.queries_per_step < world:
        raise ValueError(
            f"queries_per_step: {stage.queries_per_step} queries cannot be shared by "
            f"resources.workers={world}; raise the one or lower the other"
        )
    if stage.objective is not None and sharded(model):
        raise ValueError(
            "objective: reads whole blocks, of which workers have unequal numbers, and "
            "resources.strategy=fsdp cannot have that; use ddp"
        )
    if stage.filtering is not None and sharded(model):
        raise ValueError(
            "filtering: leaves workers with unequal work, which resources.strategy=fsdp cannot "
            "have; use ddp, or train on all groups"
        )
    if over_group_and_step(stage.loss)[1] and (stage.filtering is not None or sharded(model)):
        what = "filtering" if stage.filtering is not None else "resources.strategy=fsdp"
        raise ValueError(
            f"loss: over=step reads all queries of a step together, which {what} takes apart; "
            "leave that out, or take the loss over the group"
        )


class Training:
    """One stage between its first step and its last: validates, reports, saves, goes on."""

    def __init__(
        self,
        steps: OptimizerSteps,
        selection: Selection,
        validate: Validate,
        report: Report,
        save: Save | None,
        offers_start: bool,
    ) -> None:
        self.steps, self.selection, self.offers_start = steps, selection, offers_start
        self.model, self.stage, self.total = steps.model, steps.stage, steps.total
        self.validate, self.report, self.save, self.alarms = validate, report, save, steps.alarms
        self.validation_steps = self.stage.validation_steps(self.total)
        self.outcome = TrainingOutcome()
        self.reported = 0
        """Rows of the history that `report` has received."""

    def run(self) -> TrainingOutcome:
        """Take the remaining steps."""
        self.begun = self.saved = time.monotonic()
        outcome, selection = self.outcome, self.selection
        self.seconds_before, self.pairs_before = outcome.seconds, outcome.pairs
        if self.offers_start and outcome.steps == 0:
            self._validate(0)
        if outcome.steps < self.total:
            self.steps.settle_reduction()
        while outcome.steps < self.total and not selection.exhausted:
            row = self.steps.take(outcome.steps)
            outcome.steps += 1
            outcome.pairs += int(row["pairs"])
            outcome.tokens += int(row["tokens"])
            outcome.texts += int(row.get("texts", 0))
            outcome.masked += int(row.get("masked", 0))
            outcome.history.append(row)
            self._after(outcome.steps)
        assert selection.best is not None, "validation runs after the last step"
        if selection.weights is not None:
            bare(self.model).load_state_dict(selection.weights)
        outcome.seconds = self._seconds()
        if self.alarms is not None:
            outcome.alarms = self.alarms.messages
        if self.steps.filter is not None:
            outcome.filtering = agree(self.steps.filter.summary())
            self.steps.say(self.steps.filter.sentence())
        return outcome

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.begun

    def _after(self, step: int) -> None:
        """Validation, report and checkpoint after `step` steps, where they are due."""
        validates = step in self.validation_steps
        if validates:
            self._validate(step)
        ends = step == self.total or self.selection.exhausted
        reports = validates or step % max(self.total // 20, 1) == 0
        if reports:
            self._report(step)
        if self.save is not None and not ends and self._due(step, reports):
            self.save(step, self._snapshot(step))
            self.saved = time.monotonic()

    def _due(self, step: int, reports: bool) -> bool:
        """Whether a checkpoint is due; all workers agree."""
        if self.stage.checkpoint_every is not None:
            return step % self.stage.checkpoint_every == 0
        return reports and bool(agree(time.monotonic() - self.saved >= SAVE_AFTER_S))

    def _validate(self, step: int) -> None:
        values = self.validate(bare(self.model))
        self.outcome.history.append({"step": step, **{f"val/{k}": v for k, v in values.items()}})
        self.selection.offer(step, values, self.model)
        assert self.selection.best is not None
        self.outcome.best_step, self.outcome.best = self.selection.best_step, self.selection.best
        if self.alarms is not None:
            self.alarms.on_validation(step, values)

    def _report(self, step: int) -> None:
        seconds = max(self._seconds() - self.seconds_before, 1e-9)
        self.report(
            {
                "rows": self.outcome.history[self.reported :],
                "step": step,
                "total": self.total,
                "pairs_per_second": (self.outcome.pairs - self.pairs_before) / seconds,
            }
        )
        self.reported = len(self.outcome.history)

    # --- interruption ----------------------------------------------------------------------------

    def _snapshot(self, step: int) -> Snapshot | None:
        self.outcome.seconds = self._seconds()
        facts = {
            "outcome": asdict(self.outcome),
            "selection": self.selection.state(),
            "alarms": None if self.alarms is None else self.alarms.state(),
            **self.steps.state(),
        }
        best = self.selection.weights if self.selection.best_step != step else None
        return take(step, self.model, self.steps.optimizer, best, facts)

    def restore(self, snapshot: Snapshot, seed: int) -> None:
        """Go on after the snapshot's step."""
        facts = copy.deepcopy(snapshot.facts)  # the history goes on in it
        best = restore(snapshot, self.model, self.steps.optimizer, seed)
        names = {f.name for f in fields(TrainingOutcome)}
        self.outcome = TrainingOutcome(**{k: v for k, v in facts["outcome"].items() if k in names})
        self.outcome.resumed_from.append(snapshot.step)
        self.selection.load(facts["selection"])
        self.selection.weights = best
        if best is None and self.selection.best is not None:
            self.selection.weights = copy_of(self.model)
        self.steps.load(facts)
        if self.alarms is not None and facts["alarms"] is not None:
            self.alarms.load(facts["alarms"])
