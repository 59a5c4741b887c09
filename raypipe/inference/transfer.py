"""The way of arrays to the device: pinned, without waiting, made by threads while the device works.

A host that gathers, pads and copies between two forward passes leaves a GPU idle for most of the
time of a small model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch

Array = np.ndarray[Any, Any]
Item = TypeVar("Item")
Made = TypeVar("Made")
THREADS = 2
WAITING = 4
"""Batches that are made before the device asks for them."""


def is_gpu(device: str | torch.device) -> bool:
    """Whether the host can work ahead of the device."""
    return torch.device(device).type == "cuda"


def on_device(array: Array, device: str | torch.device) -> torch.Tensor:
    """A tensor of the array's type on `device`; a GPU copies it while the host goes on.

    From memory that is not pinned the copy would wait for all that the device has to do.
    """
    tensor = torch.from_numpy(array)
    if not is_gpu(device):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_tensors(inputs: dict[str, Array], device: str | torch.device) -> dict[str, torch.Tensor]:
    """Model inputs on `device`."""
    return {name: on_device(array, device) for name, array in inputs.items()}


def made_ahead(
    make: Callable[[Item], Made], items: Iterable[Item], *, threads: bool
) -> Iterator[Made]:
    """`make` of every item, in order.

    Args:
        threads: whether a few are made before they are asked for. On CPU that would take cores from
            the model.
    """
    if not threads:
        yield from map(make, items)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Future[Made]] = deque()
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
