"""Negatives per query: positives and sampled candidates of every group, by id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from raypipe.artifacts import Attempt, Step
from raypipe.config import ConfigError
from raypipe.data.groups import Groups
from raypipe.data.sets import Collection, Queries
from raypipe.inference.chunks import run_chunks
from raypipe.inference.groups.mining import OTHER, Sample
from raypipe.inference.rows import Rows
from raypipe.inference.teacher_values import check_finite
from raypipe.resources import Context

CHUNK = 8192


@dataclass(frozen=True)
class Negatives(Step):
    """Positives and sampled negatives of every query that can form a group."""

    candidates: Step
    queries: Queries
    collection: Collection
    groups: Groups
    others: tuple[tuple[str, Step], ...] = ()
    """Further candidates of the same queries, by the name that a mixed sampler knows them by; those
    that it does not read are left out."""
    scores: Step | None = None
    """Teacher scores of candidates, further candidates and positives, where a filter asks."""

    kind: ClassVar[str] = "negatives"
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        found = {name for name, _ in self.others}
        if missing := self.groups.negatives.sources - found:
            raise ConfigError(
                f"groups.negatives: expected further candidates for the parts {sorted(missing)}, "
                f"found {sorted(found) or 'none'}; name the source of each part"
            )
        if self.groups.filters_need_scores and self.scores is None:
            raise ConfigError("groups.filters: they compare teacher scores; name a score teacher")

    @property
    def name(self) -> str:
        return f"{self.groups.negatives.type}-{self.candidates.name}"

    def spec(self) -> Mapping[str, Any]:
        return self.groups.semantic()

    def inputs(self) -> Mapping[str, Step]:
        parts: dict[str, Step] = {
            "candidates": self.candidates,
            "queries": self.queries,
            "collection": self.collection,
            **{
                f"{OTHER}{name}": step
                for name, step in self.others
                if name in self.groups.negatives.sources
            },
        }
        return {**parts, "scores": self.scores} if self.scores is not None else parts

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        if "scores" in attempt.inputs:
            check_finite(attempt.inputs["scores"])
        rows = len(Rows(attempt.inputs["candidates"]))
        job = Sample(dict(attempt.inputs), self.groups, self.queries.queries.positive_relevance)
        counts = run_chunks(job, rows, CHUNK, attempt, context, model=False)
        if not counts.get("groups"):
            raise ConfigError(f"groups: none of {rows} queries can form a group: {counts}")
        return counts
