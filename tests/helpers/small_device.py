"""Stand-ins for a card: one with little room, one that counts what a graph keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class SmallDevice:
    """Room for so many padded tokens at a time, forward and backward; else it is out of memory."""

    def __init__(self, room: int) -> None:
        self.room, self.alive, self.refused = room, 0, 0

    def watch(self, model: torch.nn.Module) -> torch.nn.Module:
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        model.register_forward_hook(self._hold, with_kwargs=True)
        return model

    def _begin(self, module: Any, arguments: Any, inputs: Any) -> None:
        if self.alive + inputs["input_ids"].numel() > self.room:
            self.alive, self.refused = 0, self.refused + 1
            raise torch.OutOfMemoryError("no room")

    def _hold(self, module: Any, arguments: Any, inputs: Any, outputs: Any) -> None:
        scores, tokens = getattr(outputs, "logits", outputs), inputs["input_ids"].numel()
        if scores.requires_grad:  # until its backward pass
            self.alive += tokens
            scores.register_hook(lambda gradient: self._free(tokens))

    def _free(self, tokens: int) -> None:
        self.alive -= tokens


class SavedTensors:
    """A card with so much free memory, on which a pass holds what its graph saves."""

    def __init__(self, room: int) -> None:
        self.room, self.measured = room, 0

    def free(self) -> int:
        return self.room

    def peak(self, work: Callable[[], None]) -> int:
        self.measured += 1
        total = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            work()
        return total
