"""What a teacher is asked to score."""

from __future__ import annotations

from dataclasses import dataclass

from raypipe.artifacts import Step
from raypipe.data.sets import Collection, Queries


@dataclass(frozen=True)
class Lists:
    """Candidates to a depth and, for training, the documents of the groups."""

    candidates: Step
    negatives: Step | None
    collection: Collection
    queries: Queries
    depth: int
