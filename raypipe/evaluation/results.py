"""The nouns of a comparison: systems with their values per query, and what tests say of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from raypipe.config import Config
from raypipe.evaluation.bootstrap import RESAMPLES
from raypipe.evaluation.equivalence import Verdict

MAIN = "test"
"""The recipe's own test set, `data.test` over `candidates`."""
Kind = Literal[
    "first_stage", "zero_shot", "teacher", "oracle", "trained", "derived", "run", "model"
]
PerQuery = Mapping[str, Mapping[str, float]]
"""measure -> query_id -> value."""


class Statistics(Config):
    """How a comparison tells rows apart."""

    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Significance level of all tests, after Holm's correction."""
    level: float = Field(0.95, gt=0.5, lt=1)
    """Confidence level of the bootstrap intervals."""
    margin: float = Field(0.01, gt=0, lt=1)
    """Absolute difference of a mean below which two rows count as the same (TOST)."""
    resamples: int = Field(RESAMPLES, ge=100, le=10_000_000)
    """Resamples of every bootstrap and every permutation test."""


@dataclass(frozen=True)
class StageFacts:
    """What one training stage read and did: the columns of a controlled comparison."""

    name: str
    loss: str
    lr: float
    queries_per_step: int
    steps: int
    queries: int
    """Groups that training read, each counted as often as it was read."""
    pairs: int
    """Query-document forwards over all steps."""
    groups: str
    """Digest of the groups artifact: equal digests mean equal training data."""
    texts: int = 0
    """Texts that a bi-encoder read over all steps, those of a block once; else 0."""

    @property
    def pairs_per_step(self) -> float:
        return self.pairs / self.steps if self.steps else 0.0


@dataclass(frozen=True)
class QueryCost:
    """What a query of a test set took behind the first stage; of several seeds the mean."""

    milliseconds: float
    """The scoring's time over its queries, on the machine that scored, loading included."""
    pairs: float
    """Query-document pairs that models read."""
    requests: float
    """Requests to a language model."""
    weights: int
    """Bytes of the weights of all models that scored, as they are stored."""


@dataclass(frozen=True)
class Row:
    """One system: the same recipe under every seed it was trained with."""

    name: str
    kind: Kind
    results: Mapping[str, Sequence[PerQuery]]
    """Test set -> values per query, one entry per seed."""
    seeds: tuple[int, ...] = ()
    """Empty where nothing was trained."""
    stages: tuple[StageFacts, ...] = ()
    """The stages of one seed in training order."""
    pairs: int | None = None
    """Pairs that one seed trained on, over all stages; of a derived row the sum of its members."""
    seconds: float | None = None
    """Training time over all stages, mean over seeds; of a derived row the sum of its members."""
    reused: bool = False
    """True if this comparison trained no stage of the row: all stood in the store."""
    error: str = ""
    """Why the row failed and has no results; empty for a row with results."""
    runs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Test set -> digest of the run that was measured, one entry per seed; empty for rows that were
    tracked by versions that kept none."""
    tied: Mapping[str, int] = field(default_factory=dict)
    """Test set -> lists of two documents or more that have one score, over all seeds: there the row
    is what it re-ranked. Sets without such a list may be left out."""
    depths: Mapping[str, Sequence[Mapping[int, float]]] = field(default_factory=dict)
    """Test set -> per seed, candidates re-ranked -> mean of the first tested measure; sets without
    a curve are left out."""
    costs: Mapping[str, QueryCost] = field(default_factory=dict)
    """Test set -> what a query took; sets whose runs are gone are left out."""
    first: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    """Test set -> query_id -> the first documents of the first seed's list; empty for rows that
    were read from a tracking store, whose job has them."""


@dataclass(frozen=True)
class Versus:
    """Tests of a row against a reference on one measure; every p is two-sided and in 0..1."""

    difference: float
    """Mean of the row minus mean of the reference."""
    interval: tuple[float, float]
    """Confidence interval of the difference, over queries and seeds."""
    effect: float
    """Cohen's d of the paired differences."""
    p: float
    """Paired t-test."""
    p_permutation: float
    p_equivalence: float
    """TOST within the margin."""
    smallest_margin: float
    """The smallest margin that TOST could confirm on these queries."""
    detectable: float
    """The true difference that the t-test finds in four of five repetitions with such queries and
    seeds; before Holm's correction."""
    p_holm: float = math.nan
    """`p` after Holm's correction over rows, test sets and references; the next two likewise."""
    p_permutation_holm: float = math.nan
    p_equivalence_holm: float = math.nan
    verdict: Verdict = "inconclusive"


@dataclass(frozen=True)
class SuiteVersus:
    """What is known of the mean over a suite's sets, a row's minus a reference's."""

    measure: str
    sets: int
    """The suite's sets that both were judged on; fewer than 3 allow no test."""
    difference: float
    interval: tuple[float, float]
    """Confidence interval of the difference, over test sets, queries and seeds."""
    won: int
    """Sets on which the row's mean is better by the margin or more; `lost` likewise, and `tied` is
    the rest."""
    tied: int
    lost: int
    p: float
    """Hierarchical bootstrap, two-sided."""
    p_equivalence: float
    """TOST within the margin, by the same bootstrap."""
    p_holm: float = math.nan
    """`p` after Holm's correction over rows, suites and references; the next likewise."""
    p_equivalence_holm: float = math.nan
    verdict: Verdict = "inconclusive"


@dataclass(frozen=True)
class Line:
    """A row of the finished comparison on one test set."""

    row: Row
    label: str
    """a, b, c ...: the letter by which `letters` of other lines name this line."""
    means: Mapping[str, float]
    """measure -> mean over queries and seeds; empty for a failed row."""
    seed_means: Mapping[str, Sequence[float]]
    """measure -> mean over queries, per seed."""
    intervals: Mapping[str, tuple[float, float]]
    versus: Mapping[str, Mapping[str, Versus]]
    """Reference -> measure -> tests against it. A row is not tested against itself, and neither are
    the oracle and measures of no effectiveness."""
    letters: Mapping[str, str]
    """measure -> labels of the lines that this line is significantly better than."""
