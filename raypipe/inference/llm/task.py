"""What a listwise, pairwise or pointwise task has in common, and how its requests are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from raypipe.config import NOT_SEMANTIC, Config
from raypipe.inference.llm.base import Answer, Engine, Generator, Prompt
from raypipe.inference.llm.fit import Fitter
from raypipe.records import TEACHER

Row = dict[str, Any]
"""Column name to value, as the task's `columns` have them."""
_ERROR_CHARACTERS = 300


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
    """Your own wording of the request, in place of the published one."""
    queries_per_chunk: int | None = Field(None, ge=1)
    """The unit of work and of resume; its requests are batched together. None is 8 where a model is
    loaded and 64 where a service is called, so that every round fills the connections to it."""
    max_failed: Annotated[float, NOT_SEMANTIC] = Field(0.01, ge=0, le=1)
    """Share of a chunk's requests that may fail; above it the job stops, finished chunks stay."""

    columns: ClassVar[pa.Schema] = TEACHER
    values: ClassVar[Literal["score", "rank"]] = "score"
    """Higher is better, or 1 is best."""

    def judge(self, lists: Sequence[RankingList], asked: Asked) -> list[Row]:
        """One row per list, in order; a document without a value is left out of its row.

        Args:
            asked: sends the prompts and counts whatever is dropped or repaired.
        """
        raise NotImplementedError

    def check_engine(self, engine: Engine) -> None:
        """Whether the engine's context holds this task's prompts at all.

        Raises:
            ConfigError: no room for passages.
        """


class Asked:
    """A chunk's conversation with the engine: fits prompts, sends them, counts what fails."""

    def __init__(self, generate: Generator, context_tokens: int, max_failed: float) -> None:
        self.counts: Counter[str] = Counter()
        self.fit = Fitter(generate.count_tokens, context_tokens, self.counts)
        self._generate = generate
        self._max_failed = max_failed
        self._expected = 0

    def expect(self, requests: int) -> None:
        """How many requests the chunk will send; `max_failed` is a share of them."""
        self._expected = requests

    def __call__(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Answer]:
        """Answers in order; a failed one has `error`.

        Raises:
            RuntimeError: more than `max_failed` of the chunk's requests have failed.
        """
        answers = self._generate(prompts, max_new_tokens) if prompts else []
        if len(answers) != len(prompts):
            raise RuntimeError(f"the engine gave {len(answers)} answers to {len(prompts)} prompts")
        errors = [answer.error for answer in answers if answer.error is not None]
        self.counts["requests"] += len(prompts)
        self.counts["requests_failed"] += len(errors)
        failed, expected = self.counts["requests_failed"], self._expected
        if failed > self._max_failed * expected:
            raise RuntimeError(
                f"{failed} of {expected} requests of this chunk failed, max_failed allows "
                f"{self._max_failed:.1%}; the chunk is not written, finished chunks stay; the "
                f"first error: {errors[0][:_ERROR_CHARACTERS]}"
            )
        return answers
