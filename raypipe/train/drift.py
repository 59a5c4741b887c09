"""Measures whether training does something: do weights move, can they move, does the loss fall?

A weight cannot move when the learning rate is under the spacing of floating-point numbers at it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from raypipe.train.parallel import added

SIGNIFICANT = 3.0
"""Standard errors by which a loss must fall."""


def spacing_share(model: nn.Module, lr: float) -> float:
    """Share of trainable weights that a step of size `lr` leaves as they are, in their own dtype.

    AdamW moves a weight by about lr at most; w +- lr rounds to w when lr is under half the spacing
    of floating-point numbers at w. 0 without trainable weights. Under FSDP every worker calls this.
    """
    still = total = 0
    for _, weight in _trainable(model):
        still += int(((weight + lr == weight) & (weight - lr == weight)).sum())
        total += weight.numel()
    still_all, total_all = added((still, total), model)
    return still_all / max(total_all, 1)


def rate_sentence(share: float, lr: float) -> str | None:
    """The alarm for a rate below the spacing of most weights; None if at most half are stuck."""
    if share <= 0.5:
        return None
    return (
        f"lr {lr:g} cannot move {percent(share)} of the weights: a step of that size is under "
        "half the floating-point spacing at them, so the stage trains next to nothing; raise lr "
        "(1e-6 to 1e-4 is usual)."
    )


def copy_of_trainable(model: nn.Module) -> dict[str, Tensor]:
    """The `start` of `drift`: a copy of the trainable weights in main memory, under FSDP of this
    worker's part."""
    return {name: weight.to("cpu", copy=True) for name, weight in _trainable(model)}


def drift(start: Mapping[str, Tensor], model: nn.Module) -> dict[str, float]:
    """How far training moved the trainable weights; frozen ones do not count.

    drift: ||now - start|| / ||start|| over all of them together, 0 or more (infinite from zero).
    drift_unchanged: share of single weights that are equal to the last bit, 0 to 1.
    drift_unchanged_layers: the same outside the embeddings, whose rows of unseen tokens stay.
    Under FSDP every worker calls this, with its own `copy_of_trainable`.

    Raises:
        ValueError: a trainable weight is not in `start`, or has another shape there.
    """
    moved = size = 0.0
    same, total = [0, 0], [0, 0]  # [embeddings, rest]
    for name, weight in _trainable(model):
        if name not in start or start[name].shape != weight.shape:
            found = tuple(start[name].shape) if name in start else "none"
            raise ValueError(
                f"drift: expected start weights for {name} of shape {tuple(weight.shape)}, found "
                f"{found}; take the copy from the same model, after freezing"
            )
        before = start[name].to(weight.device, weight.dtype)
        moved += float(torch.linalg.vector_norm(weight - before, dtype=torch.float64)) ** 2
        size += float(torch.linalg.vector_norm(before, dtype=torch.float64)) ** 2
        rest = "embeddings" not in name
        same[rest] += int((weight == before).sum())
        total[rest] += weight.numel()
    moved, size, *counts = added((moved, size, *same, *total), model)
    same_e, same_rest, total_e, total_rest = counts
    return {
        "drift": math.sqrt(moved / size) if size else (math.inf if moved else 0.0),
        "drift_unchanged": (same_e + same_rest) / max(total_e + total_rest, 1),
        "drift_unchanged_layers": same_rest / max(total_rest, 1),
    }


def drift_sentence(moved: Mapping[str, float]) -> str:
    """Says for every stage how far its weights moved."""
    return (
        f"The stage moved the trainable weights by {moved['drift']:.2%} (relative L2 distance); "
        f"{percent(moved['drift_unchanged'])} of them did not change at all, "
        f"{percent(moved['drift_unchanged_layers'])} outside the embeddings."
    )


def percent(share: float) -> str:
    """A share in words; 100 % only of all, 0 % only of nothing.

    >>> percent(0.9996), percent(0.99996), percent(1.0)
    ('99.96 %', '99.996 %', '100.0 %')
    """
    for digits in range(1, 6):
        text = f"{100 * share:.{digits}f}"
        if share in (0.0, 1.0) or float(text) not in (0.0, 100.0):
            return f"{text} %"
    return f"{100 * share:.3g} %"


def _trainable(model: nn.Module) -> list[tuple[str, Tensor]]:
    named = [(name, p.detach()) for name, p in model.named_parameters() if p.requires_grad]
    # an FSDP2 parameter is a DTensor: arithmetic on it would gather
    return [(name, p.to_local() if hasattr(p, "to_local") else p) for name, p in named]


class LossCurve:
    """A loss curve in at most 64 means of equally many steps, however long the stage."""

    MOST = 64

    def __init__(self, size: int = 1, means: Iterable[float] = (), part: Iterable[float] = ()):
        self._size, self._means, self._part = size, list(means), list(part)

    def add(self, value: float) -> None:
        """Add the loss of one more step."""
        self._part.append(value)
        if len(self._part) < self._size:
            return
        self._means.append(math.fsum(self._part) / self._size)
        self._part = []
        if len(self._means) == self.MOST:
            self._means = [
                (a + b) / 2 for a, b in zip(self._means[::2], self._means[1::2], strict=True)
            ]
            self._size *= 2

    def flat(self) -> tuple[float, float] | None:
        """(mean of the first quarter, of the last quarter) if the loss did not fall, else None.

        The loss fell if the first sixteenth, eighth or quarter of the steps lies more than
        `SIGNIFICANT` standard errors above the last quarter. Successive differences give the noise,
        because a trend hardly enters them. Fewer than 16 steps are not judged.
        """
        means = self._means
        if len(means) < 16:
            return None
        n, quarter = len(means), len(means) // 4
        last = statistics.fmean(means[-quarter:])
        steps = [b - a for a, b in pairwise(means)]
        noise = math.sqrt(statistics.fmean([d * d for d in steps]) / 2)
        for k in (n // 16, n // 8, quarter):
            error = noise * math.sqrt(1 / k + 1 / quarter)
            if statistics.fmean(means[:k]) - last > SIGNIFICANT * error:
                return None
        return statistics.fmean(means[:quarter]), last

    def state(self) -> dict[str, Any]:
        """The arguments of an equal curve."""
        return {"size": self._size, "means": list(self._means), "part": list(self._part)}
