"""Several teachers as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from raypipe.config import Config, blamed_on, nearest
from raypipe.inference.lists import Lists
from raypipe.names import Name
from raypipe.plugins.choice import OrPlugIn
from raypipe.records import TEACHER
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.rows import Rows
from raypipe.tables.scales import min_max, zscore
from raypipe.teachers.bi_encoder import BiEncoderTeacher, Fusion
from raypipe.teachers.cross_encoder import CrossEncoderTeacher
from raypipe.teachers.list_scores import ListScores
from raypipe.teachers.llm.teacher import ListwiseLLM, PairwiseLLM, PointwiseLLM
from raypipe.teachers.own_teacher import OwnTeacher
from raypipe.teachers.published.file_scores import TrainingFileScores
from raypipe.teachers.published.pair_scores import DuoScores
from raypipe.teachers.published.rankgpt import RankGptFile
from raypipe.teachers.published.run_file import RunFile
from raypipe.teachers.published.scores import EnsembleScores, MonoScores

SingleTeacher = (
    BiEncoderTeacher
    | CrossEncoderTeacher
    | DuoScores
    | EnsembleScores
    | Fusion
    | ListScores
    | ListwiseLLM
    | MonoScores
    | PairwiseLLM
    | PointwiseLLM
    | RankGptFile
    | RunFile
    | TrainingFileScores
)
"""What an ensemble can consist of: a new teacher's name goes here."""
OWN = OrPlugIn("teacher", OwnTeacher)
Single = Annotated[SingleTeacher, Field(discriminator="type"), OWN]

Weight = Annotated[float, Field(gt=0, le=1e9)]
Normalise = Literal["none", "min_max", "z"]
Array = np.ndarray[Any, Any]

CHUNK = 4096
COLUMNS = ("query_id", "doc_ids", "values")


class Ensemble(Config):
    """The weighted mean of several teachers (Hofstaetter et al. 2020: three cross-encoders)."""

    type: Literal["ensemble"] = "ensemble"
    teachers: dict[Name, Single] = Field(min_length=2)
    """By name."""
    normalise: Normalise = "z"
    """How each teacher's values of a query are scaled first: z-scores, min-max, or none, which is
    right only for models whose logits have one scale."""
    weights: dict[str, Weight] | None = None
    """By teacher's name; a teacher that is not named weighs 1."""

    values: ClassVar[Literal["score", "rank"]] = "score"

    @property
    def negative(self) -> bool:
        """Some values are surely below 0, so that they are no gains."""
        return self.normalise == "z"

    @model_validator(mode="after")
    def _names_fit(self) -> Ensemble:
        for name in self.weights or {}:
            if name not in self.teachers:
                near = nearest(name, self.teachers)
                raise ValueError(f"weights: there is no teacher {name!r}{near}")
        return self

    @property
    def title(self) -> str:
        return f"ensemble of {', '.join(self.teachers)}"

    @property
    def needs_lists(self) -> bool:
        """Scales are taken over whole lists, so that every group of a query has the same."""
        return self.normalise != "none" or any(t.needs_lists for t in self.teachers.values())

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that combines; the teachers' own values are steps that others can share."""
        members = {name: t.scores(lists, precision) for name, t in self.teachers.items()}
        return CombinedScores(self, lists, members)

    @property
    def members(self) -> dict[str, tuple[Literal["score", "rank"], float]]:
        """What each teacher's values are, and the teacher's weight."""
        weights = self.weights or {}
        return {name: (t.values, weights.get(name, 1.0)) for name, t in self.teachers.items()}

    def check(self) -> None:
        """Everything that the teachers need is there.

        Raises:
            ConfigError: something is missing; the message begins with the teacher's name.
        """
        for name, teacher in self.teachers.items():
            with blamed_on(f"teachers.{name}"):
                teacher.check()


@dataclass(frozen=True)
class CombinedScores(Step):
    """Weighted mean over teachers; a document without a value from one of them is left out."""

    teacher: Ensemble
    lists: Lists
    members: Mapping[str, Step]
    """Values by teacher's name."""

    kind: ClassVar[str] = "teacher"
    version: ClassVar[int] = 2  # z-scores and min-max of values as large or small as doubles go

    @property
    def name(self) -> str:
        return f"ensemble-{self.lists.name}"

    def spec(self) -> Mapping[str, Any]:
        members = {name: list(member) for name, member in self.teacher.members.items()}
        return {"members": members, "normalise": self.teacher.normalise}

    def facts(self) -> Mapping[str, Any]:
        return {"values": "score"}

    def inputs(self) -> Mapping[str, Step]:
        members = {f"member_{name}": step for name, step in self.members.items()}
        return {"candidates": self.lists.candidates, **members}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        job = _Combine(dict(attempt.inputs), self.teacher)
        rows = len(Rows(attempt.inputs["candidates"]))
        return run_chunks(job, rows, CHUNK, attempt, context, model=False)


@dataclass(frozen=True)
class _Combine:
    inputs: dict[str, Artifact]
    teacher: Ensemble

    def build(self) -> Work:
        candidates = Rows(self.inputs["candidates"], COLUMNS[:1])
        members, normalise = self.teacher.members, self.teacher.normalise
        tables = {name: Rows(self.inputs[f"member_{name}"], COLUMNS) for name in members}

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            queries = candidates.read(chunk)["query_id"].to_pylist()
            by_member = {name: table.of_queries(queries) for name, table in tables.items()}
            counts: Counter[str] = Counter()
            combined = []
            for query_id in queries:
                lists = {name: _values(rows.get(query_id, [])) for name, rows in by_member.items()}
                if not all(lists.values()):
                    counts["queries_without_all_teachers"] += 1
                    continue
                doc_ids, values, left = combine(lists, members, normalise)
                counts["documents_without_all_teachers"] += left
                counts["pairs"] += len(doc_ids)
                combined.append({"query_id": query_id, "doc_ids": doc_ids, "values": values})
            return pa.Table.from_pylist(combined, schema=TEACHER), dict(counts)

        return work


def _values(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {d: v for row in rows for d, v in zip(row["doc_ids"], row["values"], strict=True)}


def combine(
    lists: Mapping[str, Mapping[str, float]],
    members: Mapping[str, tuple[str, float]],
    normalise: Normalise,
) -> tuple[list[str], Array, int]:
    """The weighted mean of the members' values, for the documents that every member has.

    Args:
        lists: value by document id, for every member; not empty.
        members: ("score" or "rank", weight) of every member; ranks count as their negative.
        normalise: applied to each member's values of the query, over the common documents.

    Returns:
        Document ids in the first member's order, float64 values (higher is better), and how many
        documents were left out.
    """
    first = next(iter(lists.values()))
    common = [d for d in first if all(d in values for values in lists.values())]
    every = set().union(*lists.values())
    total, weights = np.zeros(len(common)), 0.0
    for name, values in lists.items():
        kind, weight = members[name]
        sign = -1.0 if kind == "rank" else 1.0
        total += weight * _scaled(sign * np.array([values[d] for d in common]), normalise)
        weights += weight
    return common, total / weights, len(every) - len(common)


def _scaled(values: Array, normalise: Normalise) -> Array:
    if normalise == "z":
        return zscore(values)
    return min_max(values) if normalise == "min_max" else values
