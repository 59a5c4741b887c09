"""How many tokens a training may have alive on a GPU: measured once per card and model.

A step costs memory per token of its block, and time per block: a small model on a large card waits
for the host unless blocks are large. MiniLM-L6 on an H200 trained three times as fast with 131,072
tokens as with 32,768 (2026-11-26).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from raypipe.inference.out_of_memory import BudgetRecord, free_cached
from raypipe.inference.scoring import autocast
from raypipe.train.parallel import gathered

MOST = 131_072
"""More tokens were not seen to train faster."""
SHARE = 0.6
"""Of the free memory: the rest is for what fragments, and for validation's batches."""
_MOMENTS = 12
"""Bytes per trained weight that a training adds: its gradient and AdamW's two moments."""
_SMALL = 4_096
"""Tokens of the smaller of two measured passes; the larger has twice as many."""


class MemoryMeter(Protocol):
    """What a device tells of its memory."""

    def free(self) -> int:
        """Bytes that this process could still take."""
        ...

    def peak(self, work: Callable[[], None]) -> int:
        """The most bytes that the work held beyond what was held before."""
        ...


@dataclass(frozen=True)
class GpuMemory:
    """The memory of a GPU, of which this process has a share."""

    device: torch.device
    share: float = 1.0

    def free(self) -> int:
        free, total = torch.cuda.mem_get_info(self.device)
        kept = torch.cuda.memory_reserved(self.device)
        free += kept - torch.cuda.memory_allocated(self.device)
        return int(min(free, total * self.share - torch.cuda.memory_allocated(self.device)))

    def peak(self, work: Callable[[], None]) -> int:
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        work()
        torch.cuda.synchronize(self.device)
        return int(torch.cuda.max_memory_allocated(self.device) - before)


def measured_budget(
    model: nn.Module, longest: int, precision: str, meter: MemoryMeter, share: float
) -> int:
    """Tokens of a block that fit; all workers call this and get the same number.

    Call it before the model is wrapped. It draws no random number and leaves no gradient. What was
    measured or halved before on this card with this model is remembered.

    Args:
        longest: tokens of the longest pair.
        share: of the card that this process has.
    """
    record = training_record(model, longest, precision, share)
    known = [tokens for tokens in gathered(record.read()) if tokens is not None]
    if known:  # by any worker, so that all go the same way
        return max(min(*known, MOST), longest)
    try:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        room = SHARE * meter.free() - _MOMENTS * trained
        tokens = fitting(room, bytes_per_token(model, longest, precision, meter), longest)
    except torch.OutOfMemoryError:
        tokens = max(_SMALL, longest)  # halved where a step shows that they do not fit
    free_cached()
    tokens = min(gathered(tokens))
    record.write(tokens)
    return tokens


def training_record(model: nn.Module, longest: int, precision: str, share: float) -> BudgetRecord:
    """Where the number is remembered."""
    work = f"training in {precision}, {longest} tokens a pair, {share:g} of the card"
    return BudgetRecord.of(model, work, next(model.parameters()).device)


def fitting(room: float, per_token: float, longest: int) -> int:
    """The largest power of two, from `longest` to `MOST`, whose tokens take at most `room` bytes.

    >>> fitting(8e9, 57_000, 512), fitting(1e9, 57_000, 512), fitting(0, 57_000, 500)
    (131072, 16384, 500)
    """
    tokens = MOST
    while tokens > longest and tokens * per_token > room:
        tokens //= 2
    return max(tokens, longest)


def bytes_per_token(model: nn.Module, longest: int, precision: str, meter: MemoryMeter) -> float:
    """Bytes that a token adds to forward and backward pass, in pairs of the longest length.

    It is the slope between two passes, so that what every pass holds counts once.
    """
    rows = max(_SMALL // longest, 1)
    for parameter in model.parameters():  # held in both passes, or small ones would seem larger
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    try:
        _pass(model, rows, longest, precision)  # kernels take their workspace once
        one, two = (
            meter.peak(lambda n=n: _pass(model, n, longest, precision))  # type: ignore[misc]
            for n in (rows, 2 * rows)
        )
    finally:
        for parameter in model.parameters():
            parameter.grad = None
    return max(two - one, 1) / (rows * longest)


def _pass(model: nn.Module, rows: int, longest: int, precision: str) -> None:
    device = next(model.parameters()).device
    ids = torch.full((rows, longest), _plain_id(model), device=device)
    mask = torch.ones_like(ids)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        with autocast(device, precision):
            output = model(input_ids=ids, attention_mask=mask, **token_types(model, ids))
            given = output if isinstance(output, torch.Tensor) else output.logits
        given.float().sum().backward()


def _plain_id(model: nn.Module) -> int:
    """A token that is no padding: the last of the vocabulary."""
    return int(model.get_input_embeddings().num_embeddings) - 1  # type: ignore[operator,union-attr]


def token_types(model: nn.Module, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Token types where a model tells query and document apart by them: half of each."""
    config = getattr(model.config, "of_backbone", lambda: model.config)()  # type: ignore[union-attr]
    if (getattr(config, "type_vocab_size", 0) or 0) < 2:
        return {}
    types = torch.zeros_like(ids)
    types[:, ids.shape[1] // 2 :] = 1
    return {"token_type_ids": types}
