"""One optimizer step over all workers: rate, filter, gradient, clipping, alarms.

Shapes: Q queries, D documents per group (padded).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raypipe.inference.out_of_memory import halving
from raypipe.inference.transfer import is_gpu, on_device
from raypipe.train.alarms import Alarms, not_finite
from raypipe.train.batches import Batcher, Block, QueryOrder
from raypipe.train.blocks_ahead import BlocksAhead
from raypipe.train.gradients import Gradients, query_losses, random_state, set_random_state
from raypipe.train.loss_filter import LossFilter
from raypipe.train.optim import build_optimizer, rate, set_rate
from raypipe.train.parallel import agree, bare, rank_and_world, sharded, whole
from raypipe.train.settings import TrainingSettings
from raypipe.train.skipping import kept_rows, losses_without_graph

if TYPE_CHECKING:
    from raypipe.progress import Say


class OptimizerSteps:
    """Takes the optimizer steps of one stage; every worker holds one and takes the same steps.

    Args:
        say: given a sentence when the filter begins, on rank 0.
        remember: told the token budget that a device turned out to have no room for, halved.
    """

    def __init__(
        self,
        model: nn.Module,
        batcher: Batcher,
        stage: TrainingSettings,
        groups: int,
        *,
        seed: int,
        precision: str,
        alarms: Alarms | None,
        say: Say,
        remember: Callable[[int], None] = lambda tokens: None,
    ) -> None:
        self.model, self.batcher, self.stage, self.precision = model, batcher, stage, precision
        self.alarms, self.say, self.remember = alarms, say, remember
        self.total = stage.total_steps(groups)
        self.order = QueryOrder(groups, stage.queries_per_step, seed)
        self.optimizer = build_optimizer(model, stage)
        self.device = next(model.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.gradients = Gradients(
            model,
            stage.loss,
            precision,
            batcher.budget,
            self.scaler,
            stage.objective,
            batcher.counts_texts,
        )
        self.ahead = BlocksAhead(threads=is_gpu(self.device))
        self.filter = LossFilter(stage.filtering) if stage.filtering is not None else None

    def take(self, step: int) -> dict[str, float]:
        """Take `step` (from 0); the row of history that says what it did."""
        world, lr = rank_and_world()[1], rate(self.stage, step, self.total)
        set_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        rows, losses = self.order.rows(step), []
        warm = self.filter is not None and agree(self.filter.threshold is None)
        kept = rows if self.filter is None or warm else self._filtered(self.filter, rows)

        totals, scored = self._added(step, kept, len(rows))
        for block, scores_QD in scored:
            if self.alarms is not None:
                mask_QD = on_device(block.mask_QD, scores_QD.device)
                self.alarms.on_scores(step + 1, scores_QD, mask_QD)
            if warm:
                losses.extend(query_losses(self.stage.loss, scores_QD, block))
        if self.filter is not None and warm:  # the ordinary step's losses serve
            kept = kept_rows(rows, self.filter, self.batcher, lambda _: losses)
            if self.filter.threshold is not None:
                self.say(self.filter.beginning(step + 1))
        if world > 1:
            totals = totals.to(self.device)
            dist.all_reduce(totals)
        loss, pairs, tokens, *further = totals.tolist()
        row = {"step": step + 1, "lr": lr, "loss": loss}
        row |= self._update(step + 1, loss, lr) if kept else {"grad_norm": 0.0}
        row |= {"pairs": pairs, "tokens": tokens}
        row |= dict(zip(self.gradients.further, further, strict=True))
        if self.filter is not None:
            row["kept"] = len(kept)
        if self.alarms is not None:
            self.alarms.on_step(step + 1, loss, row.get("grad_norm", math.inf), lr)
        return row

    def _added(
        self, step: int, kept: list[int], queries: int
    ) -> tuple[Tensor, list[tuple[Block, Tensor]]]:
        """The step's gradient; what `Gradients.add` returns, and the scores [Q, D] of every block.

        A device without room for the token budget gets half of it, and the step is begun again from
        the same random state.
        """
        scored: list[tuple[Block, Tensor]] = []
        if not kept:
            return torch.zeros(self.gradients.figures, dtype=torch.float64), scored
        (rank, world), before = rank_and_world(), random_state(self.device)
        following = None
        if self.filter is None and step + 1 < self.total:
            following = self.order.rows(step + 1)[rank::world]

        def attempt(tokens: int) -> Tensor:
            blocks = self.ahead.take(self.batcher, kept[rank::world], following)
            spare = blocks[0] if blocks else next(self.batcher.blocks(kept[:1]))
            return self.gradients.add(blocks, queries, lambda *pair: scored.append(pair), spare)

        def halved(tokens: int) -> None:
            self._shrink(step + 1, tokens)
            scored.clear()
            self.optimizer.zero_grad(set_to_none=True)
            set_random_state(self.device, before)

        budget = self.gradients.budget
        if world > 1:  # the others wait in this step for a worker that would begin it again
            try:
                return attempt(budget), scored
            except torch.OutOfMemoryError as error:
                error.add_note(self._unshared(budget))
                raise
        remedy = "set gradient_checkpointing, shorten truncation, or take a smaller model"
        if self.batcher.drawn:  # batches of a quarter stay as they are
            least, remedy = self.batcher.budget // 4, f"lower dropout_tokens, {remedy}"
        else:
            least = self.batcher.truncation.longest
        return halving(attempt, budget, least, halved, remedy), scored

    def _unshared(self, budget: int) -> str:
        """What to do where several workers cannot begin a step again; half is remembered."""
        if self.batcher.drawn:
            return f"{budget:,} tokens do not fit: lower dropout_tokens, which is another seed"
        self.remember(budget // 2)
        return (
            f"{budget:,} tokens do not fit, half of them is remembered for this card and model: "
            "run the same command again, which goes on from the last checkpoint"
        )

    def _shrink(self, step: int, tokens: int) -> None:
        """Have fewer tokens alive from now on.

        Where dropout draws per batch, the batches stay, and a block that exceeds the new number is
        computed in its batches (`Gradients`): equal up to rounding for a third more work.
        """
        self.gradients = replace(self.gradients, budget=tokens)
        told = f"Step {step} does not fit into the device's memory and is done again: {tokens:,} "
        told += "tokens are alive at a time from now on"
        if self.batcher.drawn:
            self.say(f"{told}; dropout_tokens, which decides what is dropped, stays.")
            return
        self.batcher = replace(self.batcher, budget=tokens)
        self.remember(tokens)
        self.say(
            f"{told}, which is remembered for this card and model; resources.micro_batch_tokens "
            "sets another number."
        )

    def _filtered(self, loss_filter: LossFilter, rows: list[int]) -> list[int]:
        """The rows that are trained on; their losses are computed for the filter alone."""

        def losses_of(share: list[int]) -> list[float]:
            model, loss = bare(self.model), self.stage.loss
            return losses_without_graph(model, self.batcher, loss, self.precision, share)

        return kept_rows(rows, loss_filter, self.batcher, losses_of)

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

    def settle_reduction(self) -> None:
        """With three workers or more, let DDP order its buckets before the first step.

        DDP orders its buckets after its first backward pass, and the place in a bucket decides in
        which order workers' gradients are added: a resumed run would add its first step in another
        order.
        """
        if rank_and_world()[1] < 3 or sharded(self.model):
            return
        block = next(self.batcher.blocks(self.order.rows(0)[:1]))
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            for _ in range(2):  # buckets are rebuilt at the second forward pass
                totals = self.gradients.add([block], 1, lambda *_: None, block)
                assert torch.isfinite(totals[1])
                self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """What `load` needs beside model and optimizer, as JSON values."""
        return {
            "scaler": self.scaler.state_dict(),
            "filter": None if self.filter is None else self.filter.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if self.filter is not None and state["filter"] is not None:
            self.filter.load(state["filter"])
