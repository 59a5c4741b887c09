"""BM25 as a candidate source."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from raypipe.artifacts import Step
from raypipe.config import NOT_SEMANTIC
from raypipe.data.sets import Collection, Queries
from raypipe.inference.bm25 import SHARD_DOCS, Bm25Candidates, Bm25Index, Bm25Options
from raypipe.inference.without_self import WithoutSelf


class Bm25(Bm25Options):
    """The documents that share terms with the query, weighted by BM25 (Robertson 2009)."""

    type: Literal["bm25"] = "bm25"
    depth: int = Field(100, ge=1)
    """Candidates per query."""
    exclude_query_id: bool = False
    """Leave out the document that has the query's id, as BEIR does: for collections such as ArguAna
    whose queries are documents."""
    shard_docs: Annotated[int, NOT_SEMANTIC] = Field(SHARD_DOCS, ge=1, lt=2**31)
    """Most documents per part of the index; parts are built in parallel, each in the memory of one
    actor (about 20 bytes per distinct term of a document), and give the scores of one index."""

    label: ClassVar[str] = "BM25"

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that retrieves; all query sets share one index."""
        fields = {name: getattr(self, name) for name in Bm25Options.model_fields}
        index = Bm25Index(collection, Bm25Options(**fields), self.shard_docs)
        if self.exclude_query_id:
            return WithoutSelf(Bm25Candidates(index, queries, self.depth + 1), self.depth)
        return Bm25Candidates(index, queries, self.depth)

    def check(self) -> None:
        """Nothing outside the recipe is needed."""
