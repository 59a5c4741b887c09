"""Workers that train one model: who I am, what they agree on, how weights are spread over them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel


def rank_and_world() -> tuple[int, int]:
    """(rank, workers); (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def agree(value: Any) -> Any:
    """Rank 0's value, on every worker; all of them call it."""
    if rank_and_world()[1] == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: Any) -> list[Any]:
    """Every worker's value by rank, on every worker."""
    world = rank_and_world()[1]
    if world == 1:
        return [value]
    parts: list[Any] = [None] * world
    dist.all_gather_object(parts, value)
    return parts


def bare(model: nn.Module) -> nn.Module:
    """The module that owns the parameters."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def sharded(model: nn.Module) -> bool:
    """Whether every worker holds only a part of each weight (FSDP2)."""
    return any(isinstance(p, DTensor) for p in model.parameters())


def shard(model: nn.Module, device: str) -> nn.Module:
    """Spread weights, gradients and moments over all workers (FSDP2), layer by layer, in place.

    The weights stay float32; under autocast the products are computed as without it. Call it on
    every worker with equal weights, after freezing and before the optimizer is built.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(torch.device(device).type, (rank_and_world()[1],))
    for part in [m for m in model.modules() if isinstance(m, nn.ModuleList)]:
        for layer in part:
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be spread over the workers, who then all call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def added(values: Sequence[float], model: nn.Module) -> list[float]:
    """Sums over the workers' parts of a spread model, for all of them to call; else the values."""
    if not sharded(model):
        return list(values)
    device = next(model.parameters()).device
    totals = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(totals)
    sums: list[float] = totals.tolist()
    return sums


def spread_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on `like`'s device, and this worker's part of it if `like` is spread."""
    value = value.to(like.device)
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value, like.device_mesh, like.placements)


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with whole tensors; every worker calls it."""
    return {name: whole(value.detach()) for name, value in bare(model).state_dict().items()}


def load_whole(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy whole tensors into the model, spread over the workers or not.

    Raises:
        ValueError: names or shapes are not this model's.
    """
    own = bare(model).state_dict()
    differing = sorted(own.keys() ^ state.keys())
    differing += [n for n in own.keys() & state.keys() if own[n].shape != state[n].shape]
    if differing:
        raise ValueError(f"weights of another model: {', '.join(differing[:3])} do not fit")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(spread_like(state[name], value))


def without_sync(model: nn.Module, enabled: bool) -> contextlib.AbstractContextManager[None]:
    """Gradients stay on this worker: the last backward pass of a step adds them all up."""
    if enabled and isinstance(model, DistributedDataParallel):
        context: contextlib.AbstractContextManager[None] = model.no_sync()
        return context
    return contextlib.nullcontext()
