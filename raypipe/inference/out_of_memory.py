"""Work that does not fit into a device's memory is done again in halves, which is remembered.

The file of a card, a model and a kind of work lies in `$RAYPIPE_HOME/token-budgets`.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from raypipe.config import digest
from raypipe.inference.transfer import is_gpu
from raypipe.storage.files import home, make_folder, open_own

Result = TypeVar("Result")


def halving(
    work: Callable[[int], Result],
    tokens: int,
    least: int,
    halved: Callable[[int], None],
    remedy: str = "shorten truncation, take a smaller model, or end what else uses this device",
) -> Result:
    """The result of `work(tokens)`, with half the tokens whenever the device is out of memory.

    Args:
        least: tokens that are not split further: those of the longest text.
        halved: told every smaller number before the work begins again.
        remedy: what a user can do where not even `least` tokens fit.

    Raises:
        torch.OutOfMemoryError: `least` tokens do not fit; a note says the remedy.
    """
    while True:
        try:
            return work(tokens)
        except torch.OutOfMemoryError as error:
            if tokens <= least:
                error.add_note(f"expected room for {tokens:,} tokens, found none; {remedy}")
                raise
        tokens = max(tokens // 2, least)  # here, where no traceback holds tensors any more
        free_cached()
        halved(tokens)


def free_cached() -> None:
    """Give back what torch's allocator keeps of a GPU's memory."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class BudgetRecord:
    """How many tokens fit: one figure for a card, a model's shape and a kind of work."""

    card: str
    model: str
    work: str
    """Such as "scoring in bf16"."""

    @classmethod
    def of(cls, model: nn.Module, work: str, device: str | torch.device) -> BudgetRecord:
        return cls(card_name(device), shape_of(model), work)

    def read(self) -> int | None:
        """The number that was written last; None if there is none."""
        try:
            with open(self._path) as file:
                return int(json.load(file)["tokens"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, tokens: int) -> None:
        """Remember the number; a home that cannot be written only costs the next measurement."""
        with contextlib.suppress(OSError):
            make_folder(home() / "token-budgets")
            written = f"{self._path}.{uuid.uuid4().hex[:8]}"
            with open_own(home() / "token-budgets" / written, "w") as file:
                json.dump({**vars(self), "tokens": tokens}, file)
            os.replace(written, self._path)

    @property
    def _path(self) -> str:
        return str(home() / "token-budgets" / f"{digest(vars(self))}.json")


def card_name(device: str | torch.device) -> str:
    """Such as "NVIDIA H200, 140 GiB", or "cpu"."""
    if not is_gpu(device):
        return torch.device(device).type
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def shape_of(model: nn.Module) -> str:
    """What a token's memory depends on: class, attention kernel, all sizes of weights."""
    sizes = [(tuple(p.shape), str(p.dtype), p.requires_grad) for p in model.parameters()]
    config: Any = getattr(model, "config", None)
    kernel = getattr(config, "_attn_implementation", "")
    recomputed = any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    return f"{type(model).__name__}-{digest({'s': sizes, 'k': kernel, 'r': recomputed})}"
