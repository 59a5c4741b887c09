"""Learning-rate schedules: the share of the highest rate at every step."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from raypipe.config import Config


class _Schedule(Config):
    """Base: the rate rises linearly over the warm-up; `after` says what follows."""

    def factor(self, step: int, total: int, rise: int) -> float:
        """Share of the highest rate at `step` (from 0) of `total`, the first `rise` of them rising.

        It is never 0 while there is a step to take: the first takes 1 / rise.
        """
        if step < rise:
            return (step + 1) / rise
        return self.after(step - rise, max(total - rise, 1))

    def after(self, step: int, length: int) -> float:
        """The share `step` steps (from 0) after the rise, of `length` steps that follow it."""
        raise NotImplementedError


class Linear(_Schedule):
    """Falls on a straight line."""

    type: Literal["linear"] = "linear"
    floor: float = Field(0.0, ge=0, le=1)
    """Share of the highest rate that the line runs to."""

    def after(self, step: int, length: int) -> float:
        return self.floor + (1 - self.floor) * ((length - step) / length)


class Cosine(_Schedule):
    """Falls along half a cosine (Loshchilov and Hutter, arXiv 1608.03983, without restarts).

    Half of it is left after half of the steps: floor + (1 - floor) * (1 + cos(pi * s / n)) / 2.
    """

    type: Literal["cosine"] = "cosine"
    floor: float = Field(0.0, ge=0, le=1)
    """Share of the highest rate that the curve runs to."""

    def after(self, step: int, length: int) -> float:
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * step / length)) / 2


class Constant(_Schedule):
    """Stays where the warm-up ends."""

    type: Literal["constant"] = "constant"

    def after(self, step: int, length: int) -> float:
        return 1.0


Schedule = Annotated[Linear | Cosine | Constant, Field(discriminator="type")]
