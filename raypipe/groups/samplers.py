"""Samplers: which documents a query trains against, drawn from one source or several.

Every query has a random generator of its own, so neither the order of queries nor the number of
workers matters.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from raypipe.config import Config
from raypipe.groups.pool import CANDIDATES, CORPUS, QRELS, Chosen, Pool
from raypipe.plugins.choice import OrPlugIn


def query_rng(seed: int, query_id: str, *more: str) -> np.random.Generator:
    """A generator that depends only on the seed, the query id and `more` (a group's positive)."""
    text = "\0".join([str(seed), query_id, *more])
    key = hashlib.sha256(text.encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "big"))


def by_rank(documents: Iterable[Chosen]) -> list[Chosen]:
    """The documents in rank order; those of equal rank keep their order."""
    return sorted(documents, key=lambda document: document.rank)


class SamplerBase(Config):
    """The contract: `choose` one group's negatives from a pool, determined by the generator."""

    type: str = ""
    """Declared here, so that recipes are printed with `type` first."""
    count: int = Field(7, ge=1)
    """Negatives per group."""

    def draws(self, pool: Pool, rng: np.random.Generator, source: str) -> Iterator[Chosen]:
        """Allowed documents of one source in the order drawn, none twice, without a limit."""
        raise NotImplementedError

    def choose(self, pool: Pool, rng: np.random.Generator) -> list[Chosen]:
        """Up to `count` documents, in rank order; fewer if the pool has no more."""
        return by_rank(islice(self.draws(pool, rng, CANDIDATES), self.count))

    @property
    def reach(self) -> Mapping[str, int | None]:
        """The ranked lists that are read: by name the deepest rank needed, None without a limit."""
        return {CANDIDATES: None}

    @property
    def drawn_from(self) -> frozenset[str]:
        """Names of all that documents come from: ranked lists, or the whole `corpus`."""
        return frozenset(self.reach)

    @property
    def depth(self) -> int | None:
        """The deepest rank of the training candidates that can be chosen, None without a limit."""
        return self.reach.get(CANDIDATES, 0)

    @property
    def sources(self) -> frozenset[str]:
        """Names of the lists that are read beside the training candidates."""
        return frozenset(self.reach.keys() - {CANDIDATES})

    def moved(self, chosen: Iterable[Chosen]) -> int:
        """How many of `chosen` one part of a mixture gave instead of another that had no more."""
        return 0


class RankSampler(SamplerBase):
    """Base of samplers that need nothing but a list's ranks: `order` is all they write."""

    @abstractmethod
    def order(self, ranks: Sequence[int], rng: np.random.Generator) -> Iterable[int]:
        """Positions into `ranks` in the order drawn, without those that cannot be drawn."""

    def sample(self, ranks: Sequence[int], rng: np.random.Generator) -> list[int]:
        """Positions into `ranks` (ascending ranks of the allowed documents), in rank order."""
        return sorted(islice(self.order(ranks, rng), self.count))

    def draws(self, pool: Pool, rng: np.random.Generator, source: str) -> Iterator[Chosen]:
        ranked = pool.ranked(source)
        order = self.order(ranked.ranks, rng)
        documents = (Chosen(ranked.doc_ids[i], ranked.ranks[i], source) for i in order)
        return filter(pool.accept, documents)

    @property
    def deepest(self) -> int | None:
        """The deepest rank that can be drawn of any list, None without a limit."""
        return None

    @property
    def reach(self) -> Mapping[str, int | None]:
        return {CANDIDATES: self.deepest}


class TopK(RankSampler):
    """The highest-ranked candidates that are not relevant."""

    type: Literal["top_k"] = "top_k"

    def order(self, ranks: Sequence[int], rng: np.random.Generator) -> Iterable[int]:
        return range(len(ranks))


class _Window(RankSampler):
    low: int = Field(1, ge=1)
    """First rank of the window."""
    high: int = Field(100, ge=1)
    """Last rank of the window, inclusive."""

    @model_validator(mode="after")
    def _ordered(self) -> _Window:
        if self.high < self.low:
            raise ValueError(
                f"the window must not end (high={self.high}) before low={self.low}; raise high"
            )
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

    Sorting by E * rank, with E exponential, draws so (Efraimidis and Spirakis 2006).
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
            raise ValueError(
                "negatives: uniform draws from the collection, found no documents; give the pool "
                "its corpus"
            )
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

    @property
    def drawn_from(self) -> frozenset[str]:
        return frozenset({CORPUS})


class MixedPart(Config):
    """One source of a mixture."""

    share: float = Field(gt=0)
    """The part's share of the negatives, in relation to the other parts' shares."""
    sampler: Annotated[
        TopK | RandomWindow | LogRandom | Uniform,
        Field(discriminator="type"),
        OrPlugIn("sampler of ranked lists", RankSampler),
    ]
    """How the part's documents are chosen. Its `count` stays unset: the share decides."""


class Mixed(SamplerBase):
    """Negatives from several sources by share, `count` in all while there are enough documents:
    where one part has too few, the others, in order, give more."""

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
                    "uniform and every ranked source by another sampler; change the sampler's type"
                )
            if part.sampler.count != type(part.sampler).model_fields["count"].default:
                raise ValueError(
                    f"parts.{name}.sampler.count: the share decides how many; set the mixture's "
                    "count instead"
                )
        return self

    def semantic(self) -> dict[str, Any]:
        """The parts as a list: their order counts, and a digest ignores the order of a mapping."""
        fields = super().semantic()
        return {**fields, "parts": [[name, part] for name, part in fields["parts"].items()]}

    def quotas(self) -> dict[str, int]:
        """Documents per part by largest remainder; of equal remainders the first part's wins."""
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
        rngs = rng.spawn(len(self.parts))  # no part's draws depend on the other parts
        draws = {
            name: part.sampler.draws(pool, part_rng, name)
            for (name, part), part_rng in zip(self.parts.items(), rngs, strict=True)
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
        counts = Counter(document.source for document in chosen)
        return sum(max(counts[name] - quota, 0) for name, quota in self.quotas().items())

    @property
    def reach(self) -> Mapping[str, int | None]:
        ranked = {n: p.sampler for n, p in self.parts.items() if not isinstance(p.sampler, Uniform)}
        return {name: sampler.deepest for name, sampler in ranked.items()}

    @property
    def drawn_from(self) -> frozenset[str]:
        return frozenset(self.parts)


Sampler = Annotated[
    TopK | RandomWindow | LogRandom | Uniform | Mixed,
    Field(discriminator="type"),
    OrPlugIn("sampler", SamplerBase, ("draws", "choose")),
]
"""To add a sampler: write a class with `draws` (or `order`, of a ranked list), and name it here."""
