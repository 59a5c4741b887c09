"""Negatives: which documents a query trains against, from one source or several.

Sampling is seeded per query, so neither the order of queries nor the number of workers matters.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from raypipe.config import Config
from raypipe.groups.pool import CANDIDATES, CORPUS, QRELS, Chosen, Pool


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


def query_rng(seed: int, query_id: str, *more: str) -> np.random.Generator:
    """A generator that depends on the seed, the query id and `more` (a positive) only."""
    text = "\0".join([str(seed), query_id, *more])
    key = hashlib.sha256(text.encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "big"))


class MixedPart(Config):
    """One source of a mixture."""

    share: float = Field(gt=0, allow_inf_nan=False)
    """Of the negatives, in relation to the other parts' shares."""
    sampler: Annotated[TopK | RandomWindow | LogRandom | Uniform, Field(discriminator="type")]
    """How the part's documents are chosen. Its `count` stays unset: the share decides it."""


class Mixed(SamplerBase):
    """Negatives from several sources by share; the total is exactly `count` while there are
    enough documents. What one part cannot fill, the others do, in order."""

    type: Literal["mixed"] = "mixed"
    parts: dict[str, MixedPart] = Field(min_length=1)
    """By source: `candidates` (the training candidates), `corpus` (uniform, from all documents) or
    the name of further candidates."""

    @model_validator(mode="after")
    def _sensible(self) -> Mixed:
        for name, part in self.parts.items():
            uniform = isinstance(part.sampler, Uniform)
            if name == QRELS:
                raise ValueError(f"parts: {QRELS} means the judgements; name the source otherwise")
            if uniform != (name == CORPUS):
                raise ValueError(
                    f"parts.{name}: found sampler {part.sampler.type}, but {CORPUS} is sampled by "
                    "uniform and every ranked source by another one"
                )
            if part.sampler.count != type(part.sampler).model_fields["count"].default:
                raise ValueError(
                    f"parts.{name}.sampler.count: the share decides how many; set the mixture's "
                    "count instead"
                )
        return self

    def semantic(self) -> dict[str, Any]:
        """With the parts as a list, because their order counts and a mapping's is not digested."""
        out = super().semantic()
        return {**out, "parts": [[name, part] for name, part in out["parts"].items()]}

    def quotas(self) -> dict[str, int]:
        """Documents per part by largest remainder; of equal remainders the first part's counts."""
        shares = {name: Fraction(str(part.share)) for name, part in self.parts.items()}
        total = sum(shares.values())
        exact = {name: share * self.count / total for name, share in shares.items()}
        whole = {name: int(value) for name, value in exact.items()}
        left = self.count - sum(whole.values())
        for name in sorted(exact, key=lambda n: whole[n] - exact[n])[:left]:
            whole[name] += 1
        return whole

    def choose(self, pool: Pool, rng: np.random.Generator) -> list[Chosen]:
        """Up to `count` documents, part by part, each in rank order; none twice."""
        draws = {  # a generator per part: what one draws does not depend on the others
            name: part.sampler.draws(pool, own, name)
            for (name, part), own in zip(
                self.parts.items(), rng.spawn(len(self.parts)), strict=True
            )
        }
        taken: dict[str, list[Chosen]] = {name: [] for name in self.parts}
        seen: set[str] = set()

        def take(name: str, most: int) -> None:
            fresh = (d for d in draws[name] if d.doc_id not in seen)
            for document in islice(fresh, most):
                seen.add(document.doc_id)
                taken[name].append(document)

        for name, quota in self.quotas().items():
            take(name, quota)
        for name in self.parts:
            take(name, self.count - len(seen))
        return [document for part in taken.values() for document in by_rank(part)]

    def moved(self, chosen: Iterable[Chosen]) -> int:
        found = Counter(document.source for document in chosen)
        return sum(max(found[name] - quota, 0) for name, quota in self.quotas().items())

    @property
    def reach(self) -> Mapping[str, int | None]:
        ranked = {n: p.sampler for n, p in self.parts.items() if not isinstance(p.sampler, Uniform)}
        return {name: sampler.deepest for name, sampler in ranked.items()}


Sampler = Annotated[TopK | RandomWindow | LogRandom | Uniform | Mixed, Field(discriminator="type")]
"""Adding a sampler: one class with `draws` (or `order`, of a ranked list), and its name here."""
