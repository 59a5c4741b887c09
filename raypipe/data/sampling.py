"""Samplers of one source: a ranked list, or the whole collection.

A sampler draws documents one by one and passes over those that the pool refuses. All orders here
are such that this has the distribution of refusing them beforehand, and only documents that come
up are checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from raypipe.config import Config
from raypipe.data.pool import CANDIDATES, CORPUS, Chosen, Pool


def by_rank(documents: Iterable[Chosen]) -> list[Chosen]:
    """In rank order; what has equal ranks keeps its order."""
    return sorted(documents, key=lambda document: document.rank)


class SamplerBase(Config):
    """The contract: `choose` negatives of one group from a pool, deterministic given the rng."""

    type: str
    count: int = Field(7, ge=1)
    """Negatives per group."""

    def draws(self, pool: Pool, rng: np.random.Generator, source: str) -> Iterator[Chosen]:
        """Allowed documents of one source in drawing order, none twice, without a limit."""
        raise NotImplementedError

    def choose(self, pool: Pool, rng: np.random.Generator) -> list[Chosen]:
        """Up to `count` documents, in rank order; fewer if the pool has no more."""
        return by_rank(islice(self.draws(pool, rng, CANDIDATES), self.count))

    @property
    def reach(self) -> Mapping[str, int | None]:
        """The ranked lists that are read, with the deepest rank needed, None without a limit."""
        raise NotImplementedError

    @property
    def depth(self) -> int | None:
        """The deepest rank of the training candidates that can be chosen, None without a limit."""
        return self.reach.get(CANDIDATES, 0)

    @property
    def sources(self) -> frozenset[str]:
        """Names of the lists that are read beside the training candidates."""
        return frozenset(self.reach.keys() - {CANDIDATES})

    def moved(self, chosen: Iterable[Chosen]) -> int:
        """How many of `chosen` fill a place that another part of the sampler had to leave."""
        return 0


class _RankSampler(SamplerBase):
    def order(self, ranks: Sequence[int], rng: np.random.Generator) -> Iterable[int]:
        """Positions into `ranks` in drawing order; those that cannot be drawn are left out."""
        raise NotImplementedError

    def sample(self, ranks: Sequence[int], rng: np.random.Generator) -> list[int]:
        """Positions into `ranks` (ascending ranks of the allowed documents), in rank order."""
        return sorted(islice(self.order(ranks, rng), self.count))

    def draws(self, pool: Pool, rng: np.random.Generator, source: str) -> Iterator[Chosen]:
        one = pool.ranked(source)
        order = self.order(one.ranks, rng)
        return filter(pool.accept, (Chosen(one.doc_ids[i], one.ranks[i], source) for i in order))

    @property
    def deepest(self) -> int | None:
        """The deepest rank that can be drawn of any list, None without a limit."""
        return None

    @property
    def reach(self) -> Mapping[str, int | None]:
        return {CANDIDATES: self.deepest}


class TopK(_RankSampler):
    """The highest-ranked candidates that are not relevant."""

    type: Literal["top_k"] = "top_k"

    def order(self, ranks: Sequence[int], rng: np.random.Generator) -> Iterable[int]:
        return range(len(ranks))


class _Window(_RankSampler):
    low: int = Field(1, ge=1)
    """First rank of the window."""
    high: int = Field(100, ge=1)
    """Last rank of the window, inclusive."""

    @model_validator(mode="after")
    def _ordered(self) -> _Window:
        if self.high < self.low:
            raise ValueError(f"the window must not end (high={self.high}) before low={self.low}")
        return self

    def _inside(self, ranks: Sequence[int]) -> np.ndarray[Any, Any]:
        ranks_D = np.asarray(ranks, dtype=np.int64)
        return np.flatnonzero((ranks_D >= self.low) & (ranks_D <= self.high))

    @property
    def deepest(self) -> int | None:
        return self.high


class RandomWindow(_Window):
    """Uniform without replacement from a window of ranks (Pezzuti et al. 2025: 99 from 1-200)."""

    type: Literal["random_window"] = "random_window"

    def order(self, ranks: Sequence[int], rng: np.random.Generator) -> Iterable[int]:
        inside = self._inside(ranks)
        return inside[rng.permutation(len(inside))].tolist()


class LogRandom(_Window):
    """Without replacement from a window of ranks, each draw with probability proportional to
    1 / rank: denser at the top, but no rank of the window is ruled out.

    Sorting by E * rank with exponential E gives those draws (Efraimidis and Spirakis 2006).
    """

    type: Literal["log_random"] = "log_random"

    def order(self, ranks: Sequence[int], rng: np.random.Generator) -> Iterable[int]:
        inside = self._inside(ranks)
        keys = rng.exponential(size=len(inside)) * np.asarray(ranks, dtype=np.int64)[inside]
        return inside[np.argsort(keys, kind="stable")].tolist()


class Uniform(SamplerBase):
    """Any documents of the collection, all equally likely: easy negatives."""

    type: Literal["uniform"] = "uniform"

    def draws(self, pool: Pool, rng: np.random.Generator, source: str = CORPUS) -> Iterator[Chosen]:
        if not (size := len(pool.corpus)):
            raise ValueError("negatives: uniform draws from the collection, found no documents")
        tried: set[int] = set()
        while len(tried) < size:
            row = int(rng.integers(size))
            if row in tried:
                continue
            tried.add(row)
            document = Chosen(pool.corpus[row], 0, CORPUS)
            if document.doc_id not in pool.forbidden and pool.accept(document):
                yield document

    @property
    def reach(self) -> Mapping[str, int | None]:
        return {}
