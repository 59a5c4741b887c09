"""Language models as teachers: they are asked about lists, pairs or single documents."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

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


class _LlmTeacher(Task):
    """A task with an engine that answers it."""

    engine: AnyEngine
    """Where the model runs: `transformers`, `http` or `vllm`."""

    task: ClassVar[type[Task]]
    """The class whose fields are in the digest, beside the engine's `identity`."""

    @property
    def title(self) -> str:
        """For tables: the task, and the model."""
        return f"{self.task.__name__.lower()} {self.engine.label}"

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that asks about the first `depth` candidates and what training adds."""
        lists = dataclasses.replace(lists, depth=min(lists.depth, self.depth))
        return LlmScores(self, lists, precision)

    def check(self) -> None:
        """The engine has what it needs, as far as can be told, and its context holds a prompt.

        Raises:
            ConfigError: a model, a package or a setting is missing, or prompts do not fit.
        """
        self.check_engine(self.engine)
        self.engine.check()


class ListwiseLLM(_LlmTeacher, Listwise):
    """Ranks by sliding windows (RankGPT, 2304.09542)."""

    type: Literal["listwise_llm"] = "listwise_llm"
    task = Listwise
    needs_lists: ClassVar[bool] = True


class PairwiseLLM(_LlmTeacher, Pairwise):
    """Mean win probability against the neighbours (PRP, 2306.17563; PairDistill, 2410.01383)."""

    type: Literal["pairwise_llm"] = "pairwise_llm"
    task = Pairwise
    needs_lists: ClassVar[bool] = True


class PointwiseLLM(_LlmTeacher, Pointwise):
    """Log-odds of yes against no to "does the passage answer the query?" (2211.09110)."""

    type: Literal["pointwise_llm"] = "pointwise_llm"
    task = Pointwise
    needs_lists: ClassVar[bool] = False
    negative: ClassVar[bool] = True
    """Log-odds are below 0 for many documents, so that they are no gains."""


@dataclass(frozen=True)
class LlmScores(Step):
    """A model's values for the lists.

    An engine that loads a model works in the actors of a Ray Data job; one that calls a service
    works on the driver, chunk after chunk.
    """

    teacher: _LlmTeacher
    lists: Lists
    precision: str

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        task, model = self.teacher.task.__name__.lower(), self.teacher.engine.label
        return file_safe(f"{task}-{model}-{self.lists.name}", 90)

    @property
    def libraries(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("torch", "transformers") if self.teacher.engine.in_actor else ()

    @property
    def compares(self) -> bool:
        """Whether rows are those of records.PAIRWISE."""
        return self.teacher.columns is PAIRWISE

    def spec(self) -> Mapping[str, Any]:
        engine, task = self.teacher.engine, self.teacher.part(self.teacher.task).semantic()
        del task["depth"]  # the lists have the smaller one
        scale = {} if self.teacher.task.scale is None else {"scale": self.teacher.task.scale}
        return {
            **scale,
            "task": task,
            "depth": self.lists.depth,
            "engine": engine.identity(),
            "precision": self.precision if engine.uses_precision else None,
        }

    def facts(self) -> Mapping[str, Any]:
        return {"values": self.teacher.values, **self.teacher.engine.facts()}

    def inputs(self) -> Mapping[str, Step]:
        return self.lists.inputs()

    def needs(self) -> Mapping[str, Step]:
        return self.teacher.engine.needs()

    def refuses(self, counts: Mapping[str, Any]) -> str | None:
        if not self.teacher.too_many_failed(counts):
            return None
        return (
            f"{counts['requests_failed']} of {counts['requests']} requests failed, max_failed "
            f"allows {self.teacher.max_failed:.1%}"
        )

    def remarks(self, facts: Mapping[str, Any]) -> Sequence[str]:
        asked, named = facts.get("url"), self.facts().get("url")
        if asked == named:
            return ()
        return [
            f"used again, {asked} gave it and the recipe names {named}: both call their model "
            f"{self.teacher.engine.label}; set the engine's `revision` if they differ"
        ]

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = len(Rows(attempt.inputs["candidates"]))
        engine = self.teacher.engine
        size = self.teacher.queries_per_chunk or (8 if engine.in_actor else 64)
        inputs, depth = dict(attempt.inputs), self.lists.depth
        if engine.in_actor:
            job = _Judge(inputs, depth, self.teacher, context.device(), self.precision)
            counts = run_chunks(job, rows, size, attempt, context, model=True, keep=self._keep)
        else:
            generate = _Opened(engine, context)
            work = judge_work(inputs, depth, self.teacher, engine.context_tokens, generate)
            counts = run_chunks_here(work, rows, size, attempt, context, keep=self._keep)
        if not counts.get("documents"):
            raise ConfigError(
                f"{self.name}: no document got a value, found {dict(counts)}; {_remedy(counts)}"
            )
        return counts

    def _keep(self, counts: Counts) -> bool:
        """Whether a chunk of an earlier job is good enough for this recipe."""
        return not self.teacher.too_many_failed(counts)


def _remedy(counts: Mapping[str, Any]) -> str:
    """What to do where no answer of a model could be read."""
    if not (cut := counts.get("answers_cut_in_thinking")):
        return "look at the model's answers, or ask another model"
    return (
        f"{cut} answers were cut inside the model's thinking: switch it off with the engine's "
        "chat_template_kwargs={enable_thinking: false} (engine http: "
        "extra_body={chat_template_kwargs: {enable_thinking: false}}), or ask another model"
    )


@dataclass(frozen=True)
class _Judge:
    inputs: dict[str, Artifact]
    depth: int
    teacher: _LlmTeacher
    device: str
    precision: str

    def build(self) -> Work:
        engine = self.teacher.engine
        generate = engine.at(self.inputs).build(self.device, self.precision)
        return judge_work(self.inputs, self.depth, self.teacher, engine.context_tokens, generate)


class _Opened:
    """A driver engine, opened by the first chunk: a job with all its chunks needs no server."""

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
    """The work on a chunk: a table with the task's columns, one row per query.

    Args:
        inputs: candidates, collection, queries and, if there, extra: see `Lists`.
    """
    lists = ListReader(inputs, depth)
    docs = TextTable(inputs["collection"].local() / DOCS_FILE)
    queries = TextTable(inputs["queries"].local() / QUERIES_FILE)

    def work(chunk: range) -> tuple[pa.Table, Counts]:
        part = [
            RankingList(
                listed.query_id,
                queries.text(listed.query_index),
                listed.doc_ids,
                docs.texts(map(int, listed.doc_indices)),
            )
            for listed in lists.read(chunk)
        ]
        asked = Asked(generate, context_tokens, task.max_failed)
        rows = task.judge(part, asked)
        counts = {name: int(count) for name, count in asked.counts.items()}
        counts["documents"] = sum(len(row["doc_ids"]) for row in rows)
        return pa.Table.from_pylist(rows, schema=task.columns), counts

    return work
