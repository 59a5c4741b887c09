"""The training loop: pure torch, one process or several, no Ray.

Dropout 0 makes the sequence of losses independent of the number of workers up to float error.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raypipe.train.alarms import Alarms, not_finite
from raypipe.train.batches import Batcher, Block, QueryOrder
from raypipe.train.gradients import Gradients, query_losses
from raypipe.train.optim import build_optimizer, rate, set_rate
from raypipe.train.parallel import agree, bare, rank_and_world, sharded, whole
from raypipe.train.selection import Outcome, Selection, copy_of
from raypipe.train.settings import TrainingSettings
from raypipe.train.skipping import kept_rows, losses_without_graph
from raypipe.train.snapshot import Snapshot, restore, take

Validate = Callable[[nn.Module], dict[str, float]]
Report = Callable[[dict[str, Any]], None]
Save = Callable[[int, Snapshot | None], None]
Say = Callable[[str], None]
SAVE_AFTER_S = 300.0
"""A stage that says nothing of checkpoints loses at most this and a twentieth of its steps."""


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
    alarms: Alarms | None = None,
    say: Say = lambda sentence: None,
) -> Outcome:
    """Train one stage and leave the weights with the best validation value in the model.

    Continued from the snapshot of any step it gives the same bits as without a break, on CPU, with
    the same number of workers and the same token budget. With another number of workers the data
    order is the same, dropout is not.

    Args:
        model: possibly wrapped in DistributedDataParallel or sharded; every worker calls this.
        groups: how many groups of the batcher's reader are used.
        selection: the key of `validate`'s result that decides, higher is better.
        validate: given the bare model; every worker calls it and gets the same values.
        report: called about 20 times with the new rows of the history, after a resume with all.
        save: called on every worker with the step and a snapshot (None on others than rank 0).
        resume: where to go on; the same on every worker.
        say: on rank 0, given what a filter does, when it begins and at the end.

    Raises:
        FloatingPointError: a loss or a gradient is NaN or infinite.
        ValueError: a step has fewer queries than there are workers, or the snapshot does not fit.
    """
    _check(model, stage)
    training = Training(
        model,
        batcher,
        stage,
        groups,
        seed=seed,
        precision=precision,
        selection=selection,
        validate=validate,
        report=report,
        save=save,
        alarms=alarms,
        say=say,
    )
    if resume is not None:
        training.restore(resume)
    return training.run()


def _check(model: nn.Module, stage: TrainingSettings) -> None:
    world = rank_and_world()[1]
    if stage.queries_per_step < world:
        raise ValueError(
            f"queries_per_step: {stage.queries_per_step} queries cannot be shared by "
            f"resources.workers={world}; raise the one or lower the other"
        )
    if stage.filtering is not None and sharded(model):
        raise ValueError(
            "filtering: leaves workers with unequal work, which resources.strategy=fsdp cannot "
            "have; use ddp, or train on all groups"
        )


class Training:
    """One stage between its first step and its last."""

    def __init__(
        self,
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
        save: Save | None,
        alarms: Alarms | None,
        say: Say,
    ) -> None:
        self.model, self.batcher, self.stage, self.seed = model, batcher, stage, seed
        self.precision = precision
        self.validate, self.report, self.save, self.alarms = validate, report, save, alarms
        self.say = say if rank_and_world()[0] == 0 else lambda sentence: None
        self.total = stage.total_steps(groups)
        self.order = QueryOrder(groups, stage.queries_per_step, seed)
        self.optimizer = build_optimizer(model, stage)
        self.device = next(model.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.gradients = Gradients(model, stage.loss, precision, batcher.budget, self.scaler)
        self.filter = stage.filtering.build() if stage.filtering is not None else None
        self.selection = Selection(selection, stage.early_stopping)
        self.stops = stage.validation_steps(self.total)
        self.outcome = Outcome()
        self.unsent = 0

    def run(self) -> Outcome:
        """The remaining steps."""
        self.begun = self.saved = time.monotonic()
        self.before, self.pairs_before = self.outcome.seconds, self.outcome.pairs
        if self.outcome.steps < self.total:
            self._settle_reduction()
        while self.outcome.steps < self.total and not self.selection.exhausted:
            self._one_step(self.outcome.steps)
            self._after(self.outcome.steps)
        outcome, selection = self.outcome, self.selection
        assert selection.best is not None, "validation runs after the last step"
        if selection.weights is not None:
            bare(self.model).load_state_dict(selection.weights)
        outcome.seconds = self._seconds()
        if self.alarms is not None:
            outcome.alarms = self.alarms.messages
        if self.filter is not None:
            outcome.filtering = agree(self.filter.summary())
            self.say(self.filter.sentence())
        return outcome

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.begun

    def _after(self, step: int) -> None:
        """Validation, report and checkpoint after `step` steps, where they are due."""
        stop = step in self.stops
        if stop:
            self._validate(step)
        ends = step == self.total or self.selection.exhausted
        told = stop or step % max(self.total // 20, 1) == 0
        if told:
            seconds = max(self._seconds() - self.before, 1e-9)
            self.report(
                {
                    "rows": self.outcome.history[self.unsent :],
                    "step": step,
                    "total": self.total,
                    "pairs_per_second": (self.outcome.pairs - self.pairs_before) / seconds,
                }
            )
            self.unsent = len(self.outcome.history)
        if self.save is not None and not ends and self._due(step, told):
            self.save(step, self._snapshot(step))
            self.saved = time.monotonic()

    def _due(self, step: int, told: bool) -> bool:
        if self.stage.checkpoint_every is not None:
            return step % self.stage.checkpoint_every == 0
        return told and bool(agree(time.monotonic() - self.saved >= SAVE_AFTER_S))

    def _validate(self, step: int) -> None:
        values = self.validate(bare(self.model))
        self.outcome.history.append({"step": step, **{f"val/{k}": v for k, v in values.items()}})
        self.selection.offer(step, values, self.model)
        assert self.selection.best is not None
        self.outcome.best_step, self.outcome.best = self.selection.best_step, self.selection.best
        if self.alarms is not None:
            self.alarms.on_validation(step, values)

    # --- one step --------------------------------------------------------------------------------

    def _one_step(self, step: int) -> None:
        """One optimizer step over all workers; a row of history says what it did."""
        (rank, world), lr = rank_and_world(), rate(self.stage, step, self.total)
        set_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        rows, losses = self.order.rows(step), []
        warm = self.filter is not None and agree(self.filter.threshold is None)
        kept = rows if self.filter is None or warm else self._filtered(rows)

        def seen(block: Block, scores_QD: Tensor) -> None:
            if self.alarms is not None:
                mask_QD = torch.from_numpy(block.mask_QD).to(scores_QD.device)
                self.alarms.on_scores(step + 1, scores_QD, mask_QD)
            if warm:
                losses.extend(query_losses(self.stage.loss, scores_QD, block))

        if kept:
            mine = list(self.batcher.blocks(kept[rank::world]))
            spare = mine[0] if mine else next(self.batcher.blocks(kept[:1]))
            totals = self.gradients.add(mine, len(rows), seen, spare)
        else:
            totals = torch.zeros(3, dtype=torch.float64)
        if warm:  # the ordinary step's losses serve
            kept = self._warmed(step + 1, rows, losses)
        if world > 1:
            totals = totals.to(self.device)
            dist.all_reduce(totals)
        loss, pairs, tokens = totals.tolist()
        row = {"step": step + 1, "lr": lr, "loss": loss}
        row |= self._update(step + 1, loss, lr) if kept else {"grad_norm": 0.0}
        row |= {"pairs": pairs, "tokens": tokens}
        if self.filter is not None:
            row["kept"] = len(kept)
        if self.alarms is not None:
            self.alarms.on_step(step + 1, loss, row.get("grad_norm", math.inf), lr)
        self.outcome.steps = step + 1
        self.outcome.pairs += int(pairs)
        self.outcome.tokens += int(tokens)
        self.outcome.history.append(row)

    def _warmed(self, step: int, rows: list[int], losses: list[float]) -> list[int]:
        assert self.filter is not None
        kept = kept_rows(rows, self.filter, self.batcher, lambda _: losses)
        if self.filter.threshold is not None:
            self.say(self.filter.beginning(step))
        return kept

    def _filtered(self, rows: list[int]) -> list[int]:
        assert self.filter is not None
        return kept_rows(
            rows,
            self.filter,
            self.batcher,
            lambda mine: losses_without_graph(
                bare(self.model), self.batcher, self.stage.loss, self.precision, mine
            ),
        )

    def _update(self, step: int, loss: float, lr: float) -> dict[str, float]:
        """Clip, check and step the optimizer; fp16 leaves a step out whose gradient overflows."""
        self.scaler.unscale_(self.optimizer)
        clipped = nn.utils.clip_grad_norm_(self.model.parameters(), self.stage.clip)
        norm = float(whole(clipped))
        overflow = self.scaler.is_enabled() and not math.isfinite(norm)
        searching = overflow and math.isfinite(loss) and self.scaler.get_scale() >= 1
        problem = None if searching else not_finite(step, loss, norm, lr)
        if problem is not None:
            raise FloatingPointError(problem)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {"overflow": 1.0} if overflow else {"grad_norm": norm}

    def _settle_reduction(self) -> None:
        """With three workers or more, let DDP order its buckets before the first step.

        It does so after its first backward pass, and the place in a bucket decides in which order
        workers' gradients are added: a resumed run would add its first step in another order.
        """
        if rank_and_world()[1] < 3 or sharded(self.model):
            return
        block = next(self.batcher.blocks(self.order.rows(0)[:1]))
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            for _ in range(2):  # buckets are rebuilt at the second forward pass
                totals = self.gradients.add([block], 1, lambda *_: None, block)
                assert torch.isfinite(totals[1])
                self.optimizer.zero_grad(set_to_none=True)

    # --- interruption ----------------------------------------------------------------------------

    def _snapshot(self, step: int) -> Snapshot | None:
        self.outcome.seconds = self._seconds()
        facts = {
            "outcome": asdict(self.outcome),
            "selection": self.selection.state(),
            "scaler": self.scaler.state_dict(),
            "alarms": None if self.alarms is None else self.alarms.state(),
            "filter": None if self.filter is None else self.filter.state(),
        }
        best = self.selection.weights if self.selection.best_step != step else None
        return take(step, self.model, self.optimizer, best, facts)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on after the snapshot's step."""
        facts = copy.deepcopy(snapshot.facts)  # the history goes on in it
        best = restore(snapshot, self.model, self.optimizer, self.seed)
        known = {f.name for f in fields(Outcome)}
        self.outcome = Outcome(**{k: v for k, v in facts["outcome"].items() if k in known})
        self.outcome.resumed_from.append(snapshot.step)
        self.selection.load(facts["selection"])
        self.selection.weights = best
        if best is None and self.selection.best is not None:
            self.selection.weights = copy_of(self.model)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(facts["scaler"])
        if self.alarms is not None and facts["alarms"] is not None:
            self.alarms.load(facts["alarms"])
        if self.filter is not None and facts["filter"] is not None:
            self.filter.load(facts["filter"])
