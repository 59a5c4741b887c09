"""Negatives: which documents a query trains against, from one source or several.

Sampling is seeded per query, so neither the order of queries nor the number of workers matters.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from itertools import islice
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from raypipe.config import Config
from raypipe.data.pool import CORPUS, QRELS, Chosen, Pool
from raypipe.data.sampling import LogRandom, RandomWindow, SamplerBase, TopK, Uniform, by_rank

__all__ = [
    "LogRandom",
    "Mixed",
    "MixedPart",
    "RandomWindow",
    "Sampler",
    "TopK",
    "Uniform",
    "query_rng",
]


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
