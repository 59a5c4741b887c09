"""Everything a stage needs to go on after a step as if it had never stopped.

The data order and the learning rate are functions of the step. Nothing in the loop draws from
Python's or NumPy's generators, so torch's are the random state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raypipe.train.gradients import random_state, set_random_state
from raypipe.train.parallel import bare, gathered, load_whole, rank_and_world, spread_like, whole

_SLOT = "|"
"""Between a parameter's name and the optimizer's name for one of its tensors."""


@dataclass(frozen=True)
class Snapshot:
    """The state after `step` steps; tensors are whole, on the CPU and nobody else's."""

    step: int
    facts: dict[str, Any]
    """JSON values."""
    tensors: dict[str, dict[str, Tensor]]
    """weights, optimizer, rng (by rank), and best if those are other weights."""


def take(
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor] | None,
    facts: dict[str, Any],
) -> Snapshot | None:
    """The snapshot on rank 0, None elsewhere; every worker calls it.

    Args:
        best: weights worth keeping that are not the model's own.
    """
    rank, world = rank_and_world()
    device = next(model.parameters()).device
    states = gathered({k: v.cpu() for k, v in random_state(device).items()})
    weights = ((n, v.detach()) for n, v in bare(model).state_dict().items())
    tensors = {
        "weights": _collected(weights, rank),
        "optimizer": _collected(_slots(model, optimizer), rank),
        "best": _collected((best or {}).items(), rank),
        "rng": {f"{r}{_SLOT}{k}": v for r, one in enumerate(states) for k, v in one.items()},
    }
    if rank != 0:
        return None
    return Snapshot(step, {**facts, "world": world}, {k: v for k, v in tensors.items() if v})


def restore(
    snapshot: Snapshot, model: nn.Module, optimizer: torch.optim.Optimizer, seed: int
) -> dict[str, Tensor] | None:
    """Put model, optimizer and random state back; returns the best weights, spread as the model is.

    With another number of workers than the snapshot's, dropout is drawn from a new seed.

    Raises:
        ValueError: the snapshot is of another model.
    """
    rank, world = rank_and_world()
    device = next(model.parameters()).device
    load_whole(model, snapshot.tensors["weights"])
    named = {name: p for name, p in bare(model).named_parameters() if p.requires_grad}
    for key, value in snapshot.tensors["optimizer"].items():
        name, slot = key.rsplit(_SLOT, 1)
        if name not in named:
            raise ValueError(f"optimizer state of {name}, which is not trained here")
        optimizer.state[named[name]][slot] = spread_like(value, named[name])
    if snapshot.facts["world"] == world:
        rng = snapshot.tensors["rng"]
        mine = {k: rng[f"{rank}{_SLOT}{k}"] for k in ("cpu", "cuda") if f"{rank}{_SLOT}{k}" in rng}
        set_random_state(device, mine)
    else:
        torch.manual_seed((seed * 1000 + rank) * 1_000_003 + snapshot.step)
    own = bare(model).state_dict()
    best = snapshot.tensors.get("best")
    return None if best is None else {n: spread_like(v, own[n]) for n, v in best.items()}


def _slots(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterable[tuple[str, Tensor]]:
    for name, parameter in bare(model).named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            yield f"{name}{_SLOT}{slot}", value


def _collected(tensors: Iterable[tuple[str, Tensor]], rank: int) -> dict[str, Tensor]:
    found = {}
    for name, value in tensors:
        full = whole(value)  # all workers take part, one keeps it
        if rank == 0:
            found[name] = full.to("cpu", copy=True).contiguous()
    return found
