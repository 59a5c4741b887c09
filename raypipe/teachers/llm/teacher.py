"""Language models as teachers: they are asked about lists, pairs or single documents."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import pyarrow as pa

from raypipe.config import ConfigError
from raypipe.datasets.dataset import file_safe
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.inference.lists import ListReader, Lists
from raypipe.inference.llm import AnyEngine
from raypipe.inference.llm.asked import Asked
from raypipe.inference.llm.base import Generator
from raypipe.inference.llm.step import LlmStep
from raypipe.records import PAIRWISE
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work
from raypipe.tables.rows import Rows
from raypipe.tables.text_table import TextTable
from raypipe.teachers.llm.listwise import Listwise
from raypipe.teachers.llm.pairwise import Pairwise
from raypipe.teachers.llm.pointwise import Pointwise
from raypipe.teachers.llm.task import RankingList, Task


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
class LlmScores(LlmStep):
    """A model's values for the lists."""

    teacher: _LlmTeacher
    lists: Lists
    precision: str

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        task = self.teacher.task.__name__.lower()
        return file_safe(f"{task}-{self.engine.label}-{self.lists.name}", 90)

    @property
    def engine(self) -> AnyEngine:
        return self.teacher.engine

    @property
    def compares(self) -> bool:
        """Whether rows are those of records.PAIRWISE."""
        return self.teacher.columns is PAIRWISE

    def spec(self) -> Mapping[str, Any]:
        task = self.teacher.part(self.teacher.task).semantic()
        del task["depth"]  # the lists have the smaller one
        scale = {} if self.teacher.task.scale is None else {"scale": self.teacher.task.scale}
        return {**super().spec(), **scale, "task": task, "depth": self.lists.depth}

    def facts(self) -> Mapping[str, Any]:
        return {"values": self.teacher.values, **super().facts()}

    def inputs(self) -> Mapping[str, Step]:
        return self.lists.inputs()

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
            f"{self.engine.label}; set the engine's `revision` if they differ"
        ]

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = len(Rows(attempt.inputs["candidates"]))
        size, depth = self.teacher.queries_per_chunk, self.lists.depth
        ask = partial(
            judge_work, dict(attempt.inputs), depth, self.teacher, self.engine.context_tokens
        )
        counts = self.ask_in_chunks(ask, rows, size, attempt, context, self._keep)
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
