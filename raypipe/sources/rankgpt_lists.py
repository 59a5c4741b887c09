"""RankGPT's published lists as a candidate source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raypipe.artifacts import Step
from raypipe.config import Config
from raypipe.data.sets import Collection, Queries
from raypipe.inference.files import check_files
from raypipe.inference.published.rankgpt_lists import RankGptCandidates


class RankGptLists(Config):
    """The documents that the language model of the `rankgpt` teacher was shown, in that order."""

    type: Literal["rankgpt_lists"] = "rankgpt_lists"
    path: str
    """JSON lines: query_id, and retrieved_passages with docid and rank."""
    depth: int = Field(100, ge=1)
    """Candidates per query."""
    name: str = "RankGPT's lists"
    """What the source is called in tables."""

    @property
    def label(self) -> str:
        return self.name

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that reads the file."""
        return RankGptCandidates(self.path, self.depth, self.name, collection, queries)

    def check(self) -> None:
        """The file is there."""
        check_files([self.path], "rankgpt file")
