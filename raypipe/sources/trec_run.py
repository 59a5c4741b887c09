"""Published or own TREC run files as a candidate source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raypipe.artifacts import Step
from raypipe.config import Config
from raypipe.data.sets import Collection, Queries
from raypipe.inference.files import RunFileCandidates, check_files
from raypipe.inference.without_self import WithoutSelf


class TrecRun(Config):
    """Candidates from run files, plain or .gz; the rank column is the order."""

    type: Literal["trec_run"] = "trec_run"
    paths: tuple[str, ...] = Field(min_length=1)
    """One or more files; a query set takes its own queries from all of them."""
    depth: int = Field(100, ge=1)
    """Candidates per query, counted in the file's ranks."""
    exclude_query_id: bool = False
    """Leave out the document that has the query's id, as BEIR does: for collections such as ArguAna
    whose queries are documents."""
    name: str = "run"
    """What the source is called in tables."""

    @property
    def label(self) -> str:
        return self.name

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that reads the files."""
        depth = self.depth + self.exclude_query_id
        found = RunFileCandidates(self.paths, depth, self.name, collection, queries)
        return WithoutSelf(found, self.depth) if self.exclude_query_id else found

    def check(self) -> None:
        """The files exist.

        Raises:
            ConfigError: one does not.
        """
        check_files(self.paths)
