"""The nouns of a comparison: systems with their values per query, and what tests say of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from raypipe.config import Config
from raypipe.evaluation.bootstrap import RESAMPLES
from raypipe.evaluation.equivalence import Verdict

Kind = Literal["first_stage", "zero_shot", "teacher", "oracle", "trained", "derived"]
PerQuery = Mapping[str, Mapping[str, float]]
"""measure -> query_id -> value."""


class Statistics(Config):
    """How rows are told apart."""

    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Significance level of all tests, after Holm's correction."""
    level: float = Field(0.95, gt=0.5, lt=1)
    """Of the intervals."""
    margin: float = Field(0.01, gt=0, lt=1)
    """Absolute difference of a mean below which two rows count as the same (TOST)."""
    resamples: int = Field(RESAMPLES, ge=100)
    """Of bootstrap and permutation test."""


@dataclass(frozen=True)
class StageFacts:
    """What one stage of a system was trained with: the columns of a controlled comparison."""

    name: str
    loss: str
    lr: float
    queries_per_step: int
    steps: int
    queries: int
    """Groups seen, a group as often as it was seen."""
    pairs: int
    """Query-document forwards, over all steps."""
    groups: str
    """Digest of the groups artifact: equal digests, equal training data."""

    @property
    def pairs_per_step(self) -> float:
        return self.pairs / self.steps if self.steps else 0.0


@dataclass(frozen=True)
class Row:
    """One system: the same recipe under every seed it was trained with."""

    name: str
    kind: Kind
    results: Mapping[str, Sequence[PerQuery]]
    """By test set, one entry per seed."""
    seeds: tuple[int, ...] = ()
    """Empty where nothing was trained."""
    stages: tuple[StageFacts, ...] = ()
    """In training order, of one seed."""
    pairs: int | None = None
    """Trained on, over all stages, per seed; of a derived row the sum over its members."""
    seconds: float | None = None
    """Of training, over all stages, mean over seeds; of a derived row the sum."""
    reused: bool = False
    """No stage was trained for this comparison; all came from the store."""
    error: str = ""
    """Why there are no results: a failed row."""


@dataclass(frozen=True)
class Versus:
    """A row against the reference on one measure; every p is two-sided and in 0..1."""

    difference: float
    """Mean of the row minus mean of the reference."""
    effect: float
    """Cohen's d of the paired differences."""
    p: float
    """Paired t-test."""
    p_permutation: float
    p_equivalence: float
    """TOST within the margin."""
    smallest_margin: float
    """The smallest margin that TOST could confirm on these queries."""
    p_holm: float = math.nan
    """`p` after Holm over the row's family; so are the next two."""
    p_permutation_holm: float = math.nan
    p_equivalence_holm: float = math.nan
    verdict: Verdict = "inconclusive"


@dataclass(frozen=True)
class Line:
    """A row of the finished comparison on one test set."""

    row: Row
    label: str
    """a, b, c ...: what `letters` of other lines call this one."""
    means: Mapping[str, float]
    """measure -> mean over queries and seeds; empty for a failed row."""
    seed_means: Mapping[str, Sequence[float]]
    """measure -> mean over queries, per seed."""
    intervals: Mapping[str, tuple[float, float]]
    versus: Mapping[str, Versus | None]
    """measure -> against the reference; None for the reference, the oracle, and where there is no
    reference."""
    letters: Mapping[str, str]
    """measure -> labels of the lines that this one is significantly better than."""
