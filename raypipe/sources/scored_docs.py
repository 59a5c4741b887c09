"""The candidates that an ir_datasets id ships."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raypipe.artifacts import Step
from raypipe.config import Config
from raypipe.data.sets import Collection, Queries, QuerySet
from raypipe.inference.files import ScoredDocsCandidates
from raypipe.inference.without_self import WithoutSelf


class ScoredDocs(Config):
    """The scoreddocs of an ir_datasets id, such as an official top 1000; ties by doc_id.

    Where all scores of a query are equal, its order means nothing: such queries are counted as
    `queries_with_constant_scores`.
    """

    type: Literal["scored_docs"] = "scored_docs"
    dataset: str | None = None
    """The id that has them; null is each query set's own data set."""
    depth: int = Field(100, ge=1)
    """Candidates per query."""
    exclude_query_id: bool = False
    """Leave out the document that has the query's id, as BEIR does: for collections such as ArguAna
    whose queries are documents."""
    name: str = "scoreddocs"
    """What the source is called in tables."""

    @property
    def label(self) -> str:
        return self.name

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that reads them."""
        depth = self.depth + self.exclude_query_id
        found = ScoredDocsCandidates(self.dataset, depth, self.name, collection, queries)
        return WithoutSelf(found, self.depth) if self.exclude_query_id else found

    def check(self) -> None:
        """The id has scoreddocs; a query set's own id is checked when the step is planned.

        Raises:
            ConfigError: it does not, or there is no such id.
        """
        if self.dataset is not None:
            QuerySet(dataset=self.dataset).open().scoreddocs()
