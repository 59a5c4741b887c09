"""Teachers that are language models: listwise, pairwise or pointwise."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal, TypeVar

from raypipe.artifacts import Step
from raypipe.inference.lists import Lists
from raypipe.inference.llm import AnyEngine
from raypipe.inference.llm.listwise import Listwise
from raypipe.inference.llm.pairwise import Pairwise
from raypipe.inference.llm.pointwise import Pointwise
from raypipe.inference.llm.step import LlmScores
from raypipe.inference.llm.task import Task

T = TypeVar("T", bound=Task)


class _Asks(Task):
    """What the three have in common: an engine, and the step."""

    engine: AnyEngine
    """Where the model runs: `transformers`, `http` or `vllm`."""

    @property
    def _task(self) -> Task:
        raise NotImplementedError

    @property
    def label(self) -> str:
        """For tables: how the model is asked, and which."""
        return f"{type(self._task).__name__.lower()} {self.engine.label}"

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that asks about the first `depth` candidates and what training adds."""
        lists = dataclasses.replace(lists, depth=min(lists.depth, self.depth))
        return LlmScores(lists, self._task, self.engine, precision)

    def check(self) -> None:
        """Model or server are there as far as can be told, and prompts fit.

        Raises:
            ConfigError: one of them is not.
        """
        self._task.check_engine(self.engine)
        self.engine.check()


def _only(cls: type[T], teacher: Task) -> T:
    """The task without the engine: what enters the digest."""
    return cls(**{name: getattr(teacher, name) for name in cls.model_fields})


class ListwiseLLM(_Asks, Listwise):
    """Ranks by sliding windows (RankGPT, 2304.09542)."""

    type: Literal["listwise_llm"] = "listwise_llm"
    needs_lists: ClassVar[bool] = True

    @property
    def _task(self) -> Listwise:
        return _only(Listwise, self)


class PairwiseLLM(_Asks, Pairwise):
    """Mean win probability against the neighbours (PRP, 2306.17563; PairDistill, 2410.01383)."""

    type: Literal["pairwise_llm"] = "pairwise_llm"
    needs_lists: ClassVar[bool] = True

    @property
    def _task(self) -> Pairwise:
        return _only(Pairwise, self)


class PointwiseLLM(_Asks, Pointwise):
    """Log-probability of yes to "does the passage answer the query?" (2211.09110)."""

    type: Literal["pointwise_llm"] = "pointwise_llm"
    needs_lists: ClassVar[bool] = False
    negative: ClassVar[bool] = True
    """Log-probabilities are below 0, so that they are no gains."""

    @property
    def _task(self) -> Pointwise:
        return _only(Pointwise, self)
