"""The training loop: pure torch, one process or several, no Ray.

Dropout 0 makes the sequence of losses independent of the number of workers up to float error.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raypipe.losses.base import Loss
from raypipe.train.batches import Batcher, Block, QueryOrder
from raypipe.train.optim import build_optimizer, lr_factor
from raypipe.train.settings import StageConfig

Validate = Callable[[nn.Module], dict[str, float]]
Report = Callable[[dict[str, Any]], None]


@dataclass
class Outcome:
    """What a stage did; the model holds the best weights afterwards."""

    history: list[dict[str, float]] = field(default_factory=list)
    """One row per step: step, loss, lr, grad_norm, pairs, tokens; validation rows: step, val/..."""
    best_step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    pairs: int = 0
    tokens: int = 0
    seconds: float = 0.0


def train(
    model: nn.Module,
    batcher: Batcher,
    stage: StageConfig,
    groups: int,
    *,
    seed: int,
    precision: str,
    selection: str,
    validate: Validate,
    report: Report,
) -> Outcome:
    """Train one stage and leave the weights with the best validation value in the model.

    Args:
        model: possibly wrapped in DistributedDataParallel; every worker calls this.
        groups: how many groups of the batcher's reader are used.
        selection: the key of `validate`'s result that decides, higher is better.
        validate: given the bare model; every worker calls it and gets the same values.
        report: called about 20 times with the new rows of the history.

    Raises:
        FloatingPointError: a loss or a gradient is NaN or infinite.
    """
    total = stage.total_steps(groups)
    order = QueryOrder(groups, stage.queries_per_step, seed)
    optimizer = build_optimizer(model, stage)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor(step, total, stage.warmup)
    )
    stops = {math.ceil(total * (i + 1) / stage.validations) for i in range(stage.validations)}
    outcome, best_weights, started, unsent = Outcome(), None, time.time(), 0
    for step in range(total):
        rows = order.rows(step)
        row = _step(model, batcher, stage, rows, optimizer, precision)
        outcome.pairs += int(row["pairs"])
        outcome.tokens += int(row["tokens"])
        outcome.history.append({"step": step + 1, "lr": schedule.get_last_lr()[0], **row})
        schedule.step()
        if step + 1 in stops:
            values = validate(_bare(model))
            outcome.history.append({"step": step + 1, **{f"val/{k}": v for k, v in values.items()}})
            if best_weights is None or values[selection] > outcome.best[selection]:
                outcome.best_step, outcome.best = step + 1, values
                best_weights = {k: v.detach().clone() for k, v in _bare(model).state_dict().items()}
        if step + 1 in stops or (step + 1) % max(total // 20, 1) == 0:
            seconds = time.time() - started
            report(
                {
                    "rows": outcome.history[unsent:],
                    "step": step + 1,
                    "total": total,
                    "pairs_per_second": outcome.pairs / seconds,
                }
            )
            unsent = len(outcome.history)
    assert best_weights is not None, "validation runs after the last step"
    _bare(model).load_state_dict(best_weights)
    outcome.seconds = time.time() - started
    return outcome


def _step(
    model: nn.Module,
    batcher: Batcher,
    stage: StageConfig,
    rows: list[int],
    optimizer: torch.optim.Optimizer,
    precision: str,
) -> dict[str, float]:
    """One optimizer step over all workers; returns loss, gradient norm, pairs and tokens."""
    rank, world = _place()
    device = next(model.parameters()).device
    mine = rows[rank::world]
    totals = torch.zeros(3, dtype=torch.float64)
    optimizer.zero_grad(set_to_none=True)
    blocks = list(batcher.blocks(mine))
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        with _without_sync(model, enabled=not last):
            share = block.queries / len(rows)
            loss = block_loss(model, block, stage.loss, precision, device)
            # DDP averages over workers; the mean is over all queries of the step
            (loss * share * world).backward()
        totals += torch.tensor([float(loss.detach()) * share, block.pairs, block.tokens])
    if world > 1:
        dist.all_reduce(totals)
    norm = nn.utils.clip_grad_norm_(model.parameters(), stage.clip)
    for what, value in (("loss", float(totals[0])), ("norm of the gradient", float(norm))):
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the {what} is {value}: lower lr ({stage.lr:g}), raise warmup or the loss's "
                "temperature, or use precision=fp32"
            )
    optimizer.step()
    loss_sum, pairs, tokens = totals.tolist()
    return {"loss": loss_sum, "grad_norm": float(norm), "pairs": pairs, "tokens": tokens}


def block_loss(
    model: nn.Module, block: Block, loss: Loss, precision: str, device: torch.device
) -> Tensor:
    """The mean loss over the block's queries."""
    scores_T = torch.zeros(block.pairs, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        for chosen, inputs in block.batches:
            tensors = {name: torch.from_numpy(a).to(device) for name, a in inputs.items()}
            scores = model(**tensors).logits[:, 0].float()
            scores_T = scores_T.index_put((torch.from_numpy(chosen).to(device),), scores)
    rows, columns = (torch.from_numpy(a).to(device) for a in block.place_T)
    shape = block.mask_QD.shape
    scores_QD = torch.zeros(shape, device=device).index_put((rows, columns), scores_T)
    return loss(
        scores_QD,
        torch.from_numpy(block.targets_QD).to(device),
        torch.from_numpy(block.mask_QD).to(device),
        torch.from_numpy(block.positive_QD).to(device),
    )


def _bare(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model


def _place() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _without_sync(model: nn.Module, enabled: bool) -> contextlib.AbstractContextManager[None]:
    if enabled and isinstance(model, DistributedDataParallel):
        context: contextlib.AbstractContextManager[None] = model.no_sync()
        return context
    return contextlib.nullcontext()
