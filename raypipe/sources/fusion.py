"""Several candidate sources as one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raypipe.artifacts import Step
from raypipe.config import Config, ConfigError, nearest
from raypipe.data.sets import Collection, Queries
from raypipe.inference.fuse import Method, ReciprocalRank
from raypipe.inference.fused_candidates import FusedCandidates
from raypipe.inference.without_self import WithoutSelf
from raypipe.sources.bm25 import Bm25
from raypipe.sources.dense import Dense
from raypipe.sources.rankgpt_lists import RankGptLists
from raypipe.sources.scored_docs import ScoredDocs
from raypipe.sources.trec_run import TrecRun

Plain = Annotated[Bm25 | Dense | RankGptLists | ScoredDocs | TrecRun, Field(discriminator="type")]
"""What can be fused: a new source's name goes here too."""

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Fused(Config):
    """The union of several sources' candidates, in the order of a weighted sum."""

    type: Literal["fused"] = "fused"
    sources: dict[str, Plain] = Field(min_length=2)
    """By name, in the order of the `sources` column, where names are joined by "+"."""
    method: Method = ReciprocalRank()
    """What a document gains from its place in a source's list."""
    weights: dict[str, Weight] | None = None
    """By source name; a source that is not named weighs 1."""
    depth: int = Field(100, ge=1)
    """Candidates per query, out of the union of what the sources retrieve to their own depths."""
    exclude_query_id: bool = False
    """Leave out the document that has the query's id, as BEIR does: for collections such as ArguAna
    whose queries are documents."""

    @model_validator(mode="after")
    def _names_fit(self) -> Fused:
        for name in self.sources:
            if not name or "+" in name:
                raise ValueError(f'sources: expected a name without "+", found {name!r}; rename it')
        for name in self.weights or {}:
            if name not in self.sources:
                raise ValueError(
                    f"weights: there is no source {name!r}{nearest(name, self.sources)}"
                )
        return self

    @property
    def label(self) -> str:
        return f"fusion of {', '.join(self.sources)}"

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that fuses; the sources' own candidates are steps that others can share."""
        members = tuple(
            (name, source.candidates(collection, queries, precision))
            for name, source in self.sources.items()
        )
        weights = self.weights or {}
        fused = FusedCandidates(
            members,
            queries,
            self.method,
            tuple(weights.get(n, 1.0) for n, _ in members),
            self.depth + self.exclude_query_id,
        )
        return WithoutSelf(fused, self.depth) if self.exclude_query_id else fused

    def check(self) -> None:
        """Everything that the sources need is there.

        Raises:
            ConfigError: it is not; the message begins with the source's name.
        """
        for name, source in self.sources.items():
            try:
                source.check()
            except ConfigError as error:
                raise ConfigError(f"sources.{name}: {error}") from None
