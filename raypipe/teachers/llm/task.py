"""Base of the tasks that a language model is asked about ranked lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from raypipe.config import NOT_SEMANTIC, Config
from raypipe.inference.llm.asked import Asked
from raypipe.inference.llm.base import Engine
from raypipe.records import TEACHER

Row = dict[str, Any]
"""Column name to value, as the task's `columns` have them."""


@dataclass(frozen=True)
class RankingList:
    """One query and the documents that the model judges, in first-stage order."""

    query_id: str
    query: str
    doc_ids: list[str]
    passages: list[str]
    """Texts of `doc_ids`."""


class Task(Config):
    """Base of the three ways to ask. A subclass has `columns` and one verb, `judge`."""

    depth: int = Field(100, ge=2)
    """Candidates that are judged, at most as many as there are; what training adds to the
    candidates (injected positives) is judged behind them."""
    instruction: str | None = None
    """Your own wording of the request instead of the published wording."""
    queries_per_chunk: int | None = Field(None, ge=1)
    """The unit of work and of resume; a chunk's requests are batched together. None is 8 where a
    model is loaded, and 64 where a service is called, so that requests fill its connections."""
    max_failed: Annotated[float, NOT_SEMANTIC] = Field(0.01, ge=0, le=1)
    """Share of a chunk's requests that may fail; above it the job stops, finished chunks stay.
    Values of an earlier job of which a larger share failed are asked for again."""

    columns: ClassVar[pa.Schema] = TEACHER
    values: ClassVar[Literal["score", "rank"]] = "score"
    """Higher is better, or 1 is best."""
    scale: ClassVar[str | None] = None
    """What the values are, where it is another thing than in earlier versions."""

    def judge(self, lists: Sequence[RankingList], asked: Asked) -> list[Row]:
        """One row per list, in order; a document without a value is left out of its row.

        Args:
            asked: sends the prompts and counts whatever is dropped or repaired.
        """
        raise NotImplementedError

    def too_many_failed(self, counts: Mapping[str, Any]) -> bool:
        """Whether more of these requests failed than `max_failed` allows."""
        failed, requests = counts.get("requests_failed", 0), counts.get("requests", 0)
        return bool(failed > self.max_failed * requests)

    def check_engine(self, engine: Engine) -> None:
        """Whether the engine's context holds this task's prompts at all.

        Raises:
            ConfigError: no room for passages.
        """
