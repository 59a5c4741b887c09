"""Workers that train one model: their ranks, what they exchange, how weights are spread."""

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
    """Rank 0's value, on every worker; all workers call this."""
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


def gathered_rows(rows_RH: Tensor) -> list[Tensor]:
    """Every worker's rows by rank, on this worker's device, without a graph.

    Workers may have unlike numbers of rows. With NCCL they go from device to device.
    """
    rows_RH = rows_RH.detach()
    if rank_and_world()[1] == 1:
        return [rows_RH]
    own = rows_RH if "nccl" in dist.get_backend_config() else rows_RH.cpu()
    sizes = gathered(len(own))
    padded = own.new_zeros((max(sizes), *own.shape[1:]))
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return [part[:size].to(rows_RH.device) for part, size in zip(parts, sizes, strict=True)]


def bare(model: nn.Module) -> nn.Module:
    """The model without its DistributedDataParallel wrapper."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def sharded(model: nn.Module) -> bool:
    """Whether every worker holds only a part of each weight (FSDP2)."""
    return any(isinstance(p, DTensor) for p in model.parameters())


def shard(model: nn.Module, device: str) -> nn.Module:
    """Spread weights, gradients and moments over all workers (FSDP2), layer by layer, in place.

    The weights stay float32; under autocast the products are computed as without sharding. Call
    this on every worker with equal weights, after freezing and before the optimizer is built.
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
    """All of a tensor that may be spread over the workers; then all workers call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def added(values: Sequence[float], model: nn.Module) -> list[float]:
    """Sums of figures that workers counted in their parts of a spread model; all workers call this.

    If the model is not spread, every worker counted all of it: the values as they are.
    """
    if not sharded(model):
        return list(values)
    device = next(model.parameters()).device
    totals = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(totals)
    sums: list[float] = totals.tolist()
    return sums


def spread_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on `like`'s device, cut to this worker's part if `like` is spread."""
    value = value.to(like.device)
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value, like.device_mesh, like.placements)


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with whole tensors; every worker calls this."""
    return {name: whole(value.detach()) for name, value in bare(model).state_dict().items()}


def load_whole(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy whole tensors into the model, spread over the workers or not.

    Raises:
        ValueError: names or shapes differ from the model's.
    """
    weights = bare(model).state_dict()
    differing = sorted(weights.keys() ^ state.keys())
    differing += [n for n in weights.keys() & state.keys() if weights[n].shape != state[n].shape]
    if differing:
        raise ValueError(
            f"weights of another model: {', '.join(differing[:3])} do not fit; go on with the "
            "model that was saved"
        )
    with torch.no_grad():
        for name, value in weights.items():
            value.copy_(spread_like(state[name], value))


def without_sync(model: nn.Module, enabled: bool) -> contextlib.AbstractContextManager[None]:
    """Keep gradients on this worker; the last backward pass of a step adds those of all workers."""
    if enabled and isinstance(model, DistributedDataParallel):
        context: contextlib.AbstractContextManager[None] = model.no_sync()
        return context
    return contextlib.nullcontext()
