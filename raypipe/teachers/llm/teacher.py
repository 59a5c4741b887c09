"""Teachers that are language models: listwise, pairwise or pointwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import pyarrow as pa

from raypipe.config import ConfigError
from raypipe.datasets.dataset import file_safe
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.inference.lists import ListReader, Lists
from raypipe.inference.llm import AnyEngine
from raypipe.inference.llm.base import Engine, Generator
from raypipe.records import PAIRWISE
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks, run_chunks_here
from raypipe.tables.rows import Rows
from raypipe.tables.text_table import TextTable
from raypipe.teachers.llm.listwise import Listwise
from raypipe.teachers.llm.pairwise import Pairwise
from raypipe.teachers.llm.pointwise import Pointwise
from raypipe.teachers.llm.task import Asked, RankingList, Task

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


@dataclass(frozen=True)
class LlmScores(Step):
    """A model's values for the lists: in the actors of a Ray Data job where the engine loads a
    model, chunk after chunk on the driver where it calls a service."""

    lists: Lists
    task: Task
    engine: Engine
    precision: str

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return file_safe(
            f"{type(self.task).__name__.lower()}-{self.engine.label}-{self.lists.name}", 90
        )

    @property
    def compares(self) -> bool:
        """Whether rows are those of records.PAIRWISE."""
        return self.task.columns is PAIRWISE

    def spec(self) -> Mapping[str, Any]:
        task = {name: v for name, v in self.task.semantic().items() if name != "depth"}
        return {
            "task": task,
            "depth": self.lists.depth,
            "engine": self.engine.identity(),
            "precision": self.precision if self.engine.uses_precision else None,
        }

    def facts(self) -> Mapping[str, Any]:
        return {"values": self.task.values, **self.engine.facts()}

    def inputs(self) -> Mapping[str, Step]:
        return self.lists.inputs()

    def needs(self) -> Mapping[str, Step]:
        return self.engine.needs()

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = len(Rows(attempt.inputs["candidates"]))
        size = self.task.queries_per_chunk or (8 if self.engine.in_actor else 64)
        inputs, depth = dict(attempt.inputs), self.lists.depth
        if self.engine.in_actor:
            job = _Judge(inputs, depth, self.task, self.engine, context.device(), self.precision)
            counts = run_chunks(job, rows, size, attempt, context, model=True)
        else:
            generate = _Opened(self.engine, context)
            work = judge_work(inputs, depth, self.task, self.engine.context_tokens, generate)
            counts = run_chunks_here(work, rows, size, attempt, context)
        if not counts.get("documents"):
            raise ConfigError(f"{self.name}: no document got a value; counted: {dict(counts)}")
        return counts


@dataclass(frozen=True)
class _Judge:
    inputs: dict[str, Artifact]
    depth: int
    task: Task
    engine: Engine
    device: str
    precision: str

    def build(self) -> Work:
        generate = self.engine.at(self.inputs).build(self.device, self.precision)
        return judge_work(self.inputs, self.depth, self.task, self.engine.context_tokens, generate)


class _Opened:
    """A driver engine, opened by the first chunk: a job whose chunks all stand needs no server."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine = engine
        self._context = context
        self._generate: Generator | None = None

    def __call__(self, prompts: Any, max_new_tokens: int) -> Any:
        return self._open()(prompts, max_new_tokens)

    def count_tokens(self, text: str) -> int:
        return self._open().count_tokens(text)

    def _open(self) -> Generator:
        if self._generate is None:
            self._generate = self._engine.open(self._context)
        return self._generate


def judge_work(
    inputs: Mapping[str, Artifact],
    depth: int,
    task: Task,
    context_tokens: int,
    generate: Generator,
) -> Work:
    """Rows of the candidates to a table with the task's columns, one row per query.

    Args:
        inputs: candidates, collection, queries and, if there, extra: see `Lists`.
    """
    lists = ListReader(inputs, depth)
    docs = TextTable(inputs["collection"].local() / DOCS_FILE)
    queries = TextTable(inputs["queries"].local() / QUERIES_FILE)

    def work(chunk: range) -> tuple[pa.Table, Counts]:
        part = [
            RankingList(
                one.query_id,
                queries.text(one.query_index),
                one.doc_ids,
                docs.texts(map(int, one.doc_indices)),
            )
            for one in lists.read(chunk)
        ]
        asked = Asked(generate, context_tokens, task.max_failed)
        rows = task.judge(part, asked)
        counts = {name: int(count) for name, count in asked.counts.items()}
        counts["documents"] = sum(len(row["doc_ids"]) for row in rows)
        return pa.Table.from_pylist(rows, schema=task.columns), counts

    return work
