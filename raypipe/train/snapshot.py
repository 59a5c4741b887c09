"""The state of a training after a step, from which it goes on as if it had never stopped.

A snapshot holds weights, the optimizer's tensors, the state of torch's random generators, and the
loop's facts. The data order and the learning rate need no state: they are functions of the step.
Nothing in the loop draws from Python's or NumPy's generators.
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
"""Separates the two parts of a tensor's key: `PARAMETER|exp_avg`, `RANK|cpu`."""


@dataclass(frozen=True)
class Snapshot:
    """The state after `step` steps."""

    step: int
    facts: dict[str, Any]
    """What the loop remembers, as JSON values, and `world`, the number of workers."""
    tensors: dict[str, dict[str, Tensor]]
    """By part: weights, optimizer, rng (of every rank), and best if the best weights are others.
    Every tensor is whole, on the CPU, and a copy."""


def take(
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor] | None,
    facts: dict[str, Any],
) -> Snapshot | None:
    """A snapshot on rank 0, None on other ranks; every worker calls this.

    Args:
        best: the weights of the best validation, if they are not the model's present ones.
    """
    rank, world = rank_and_world()
    device = next(model.parameters()).device
    states = gathered({k: v.cpu() for k, v in random_state(device).items()})
    weights = ((n, v.detach()) for n, v in bare(model).state_dict().items())
    tensors = {
        "weights": _collected(weights, rank),
        "optimizer": _collected(_slots(model, optimizer), rank),
        "best": _collected((best or {}).items(), rank),
        "rng": {f"{r}{_SLOT}{k}": v for r, state in enumerate(states) for k, v in state.items()},
    }
    if rank != 0:
        return None
    return Snapshot(step, {**facts, "world": world}, {k: v for k, v in tensors.items() if v})


def restore(
    snapshot: Snapshot, model: nn.Module, optimizer: torch.optim.Optimizer, seed: int
) -> dict[str, Tensor] | None:
    """Put model, optimizer and random state back; returns the best weights, spread as the model is.

    If the snapshot is of another number of workers, dropout is drawn from a new seed.

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
            raise ValueError(
                f"snapshot: expected optimizer state of trainable weights, found {name}, which is "
                "not trained here; go on with the model and the frozen layers of the snapshot"
            )
        optimizer.state[named[name]][slot] = spread_like(value, named[name])
    if snapshot.facts["world"] == world:
        rng = snapshot.tensors["rng"]
        keys = {kind: f"{rank}{_SLOT}{kind}" for kind in ("cpu", "cuda")}
        set_random_state(device, {kind: rng[key] for kind, key in keys.items() if key in rng})
    else:
        torch.manual_seed((seed * 1000 + rank) * 1_000_003 + snapshot.step)
    own = bare(model).state_dict()
    best = snapshot.tensors.get("best")
    return None if best is None else {n: spread_like(v, own[n]) for n, v in best.items()}


def _slots(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterable[tuple[str, Tensor]]:
    """The optimizer's tensors by parameter and slot; numbers as tensors, nothing for None.

    Raises:
        ValueError: an optimizer of the user's own keeps something else.
    """
    for name, parameter in bare(model).named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            if value is None:
                continue
            if not isinstance(value, Tensor | int | float):
                raise ValueError(
                    f"optimizer: expected tensors or numbers as state of a weight, found "
                    f"{type(value).__name__} as {slot!r} of {name}; keep tensors"
                )
            yield f"{name}{_SLOT}{slot}", torch.as_tensor(value)


def _collected(tensors: Iterable[tuple[str, Tensor]], rank: int) -> dict[str, Tensor]:
    """Whole copies on the CPU of rank 0; other ranks take part and keep nothing."""
    copies = {}
    for name, value in tensors:
        full = whole(value)
        if rank == 0:
            copies[name] = full.to("cpu", copy=True).contiguous()
    return copies
