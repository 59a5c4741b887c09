"""BM25 as a candidate source."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from raypipe.artifacts import Step
from raypipe.data.sets import Collection, Queries
from raypipe.inference.bm25 import Bm25Candidates, Bm25Index, Bm25Options


class Bm25(Bm25Options):
    """The documents that share terms with the query, weighted by BM25 (Robertson 2009)."""

    type: Literal["bm25"] = "bm25"
    depth: int = Field(100, ge=1)
    """Candidates per query."""

    label: ClassVar[str] = "BM25"

    def candidates(self, collection: Collection, queries: Queries) -> Step:
        """The step that retrieves; all query sets share one index."""
        fields = {name: getattr(self, name) for name in Bm25Options.model_fields}
        return Bm25Candidates(Bm25Index(collection, Bm25Options(**fields)), queries, self.depth)

    def check(self) -> None:
        """Nothing outside the recipe is needed."""
