"""Negatives: which candidates a query trains against.

Sampling is seeded per query, so neither the order of queries nor the number of workers matters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from raypipe.config import Config


class TopK(Config):
    """The highest-ranked candidates that are not relevant."""

    type: Literal["top_k"] = "top_k"
    count: int = Field(7, ge=1)
    """Negatives per query."""

    def sample(self, ranks: Sequence[int], rng: np.random.Generator) -> list[int]:
        """Positions into `ranks` (ascending ranks of the non-relevant candidates)."""
        return list(range(min(self.count, len(ranks))))

    @property
    def depth(self) -> int | None:
        """The deepest rank that can be chosen, None without a limit."""
        return None


class RandomWindow(Config):
    """Uniform without replacement from a window of ranks (Pezzuti et al. 2025: 99 from 1-200)."""

    type: Literal["random_window"] = "random_window"
    count: int = Field(7, ge=1)
    """Negatives per query."""
    low: int = Field(1, ge=1)
    """First rank of the window."""
    high: int = Field(100, ge=1)
    """Last rank of the window, inclusive."""

    @model_validator(mode="after")
    def _ordered(self) -> RandomWindow:
        if self.high < self.low:
            raise ValueError(f"the window must not end (high={self.high}) before low={self.low}")
        return self

    def sample(self, ranks: Sequence[int], rng: np.random.Generator) -> list[int]:
        """Positions into `ranks`, in rank order; fewer than `count` if the window holds fewer."""
        inside = [i for i, rank in enumerate(ranks) if self.low <= rank <= self.high]
        chosen = rng.permutation(len(inside))[: self.count]
        return sorted(inside[i] for i in chosen)

    @property
    def depth(self) -> int | None:
        """The deepest rank that can be chosen."""
        return self.high


Sampler = Annotated[TopK | RandomWindow, Field(discriminator="type")]


def query_rng(seed: int, query_id: str) -> np.random.Generator:
    """A generator that depends on the seed and the query id only."""
    key = hashlib.sha256(f"{seed}\0{query_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "big"))
