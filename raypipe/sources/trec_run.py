"""Published or own TREC run files as a candidate source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raypipe.artifacts import Step
from raypipe.config import Config
from raypipe.data.sets import Collection, Queries
from raypipe.inference.files import RunFileCandidates, check_files


class TrecRun(Config):
    """Candidates from run files, plain or .gz; the rank column is the order."""

    type: Literal["trec_run"] = "trec_run"
    paths: tuple[str, ...] = Field(min_length=1)
    """One or more files; a query set takes its own queries from all of them."""
    depth: int = Field(100, ge=1)
    """Candidates per query, counted in the file's ranks."""
    name: str = "run"
    """What the source is called in tables."""

    @property
    def label(self) -> str:
        return self.name

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that reads the files."""
        return RunFileCandidates(self.paths, self.depth, self.name, collection, queries)

    def check(self) -> None:
        """The files exist.

        Raises:
            ConfigError: one does not.
        """
        check_files(self.paths)
