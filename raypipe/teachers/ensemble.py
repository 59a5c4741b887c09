"""Several teachers as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from raypipe.config import Config, ConfigError, nearest
from raypipe.inference.lists import Lists
from raypipe.records import TEACHER
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.rows import Rows
from raypipe.tables.scales import min_max, zscore
from raypipe.teachers.bi_encoder import BiEncoderTeacher, Fusion
from raypipe.teachers.cross_encoder import CrossEncoderTeacher
from raypipe.teachers.llm.teacher import ListwiseLLM, PairwiseLLM, PointwiseLLM
from raypipe.teachers.published.configs import (
    DuoScores,
    EnsembleScores,
    MonoScores,
    RankGptFile,
    RunFile,
)

Single = Annotated[
    BiEncoderTeacher
    | CrossEncoderTeacher
    | DuoScores
    | EnsembleScores
    | Fusion
    | ListwiseLLM
    | MonoScores
    | PairwiseLLM
    | PointwiseLLM
    | RankGptFile
    | RunFile,
    Field(discriminator="type"),
]
"""What an ensemble can consist of: a new teacher's name goes here."""

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Ensemble(Config):
    """The weighted mean of several teachers (Hofstaetter et al. 2020: three cross-encoders)."""

    type: Literal["ensemble"] = "ensemble"
    teachers: dict[str, Single] = Field(min_length=2)
    """By name."""
    normalise: Normalise = "z"
    """What each teacher's values of a query go through first: z-scores, min-max, or nothing, which
    is right for models with one scale of logits only."""
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
    def label(self) -> str:
        return f"ensemble of {', '.join(self.teachers)}"

    @property
    def needs_lists(self) -> bool:
        """Scales are taken over whole lists, so that every group of a query has the same."""
        return self.normalise != "none" or any(t.needs_lists for t in self.teachers.values())

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that combines; the teachers' own values are steps that others can share."""
        weights = self.weights or {}
        members = {
            name: Member(teacher.scores(lists, precision), teacher.values, weights.get(name, 1.0))
            for name, teacher in self.teachers.items()
        }
        return CombinedScores(lists, members, self.normalise)

    def check(self) -> None:
        """Everything that the teachers need is there.

        Raises:
            ConfigError: it is not; the message begins with the teacher's name.
        """
        for name, teacher in self.teachers.items():
            try:
                teacher.check()
            except ConfigError as error:
                raise ConfigError(f"teachers.{name}: {error}") from None


CHUNK = 4096
COLUMNS = ("query_id", "doc_ids", "values")
Array = np.ndarray[Any, Any]
Normalise = Literal["none", "min_max", "z"]


@dataclass(frozen=True)
class Member:
    """One teacher of an ensemble."""

    scores: Step
    kind: Literal["score", "rank"]
    weight: float


@dataclass(frozen=True)
class CombinedScores(Step):
    """Weighted mean over teachers; a document needs a value from every one of them."""

    lists: Lists
    members: Mapping[str, Member]
    normalise: Normalise

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"ensemble-{self.lists.name}"

    def spec(self) -> Mapping[str, Any]:
        how = {name: [one.kind, one.weight] for name, one in self.members.items()}
        return {"members": how, "normalise": self.normalise}

    def facts(self) -> Mapping[str, Any]:
        return {"values": "score"}

    def inputs(self) -> Mapping[str, Step]:
        members = {f"member_{name}": one.scores for name, one in self.members.items()}
        return {"candidates": self.lists.candidates, **members}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        job = _Combine(
            dict(attempt.inputs),
            {name: (one.kind, one.weight) for name, one in self.members.items()},
            self.normalise,
        )
        rows = len(Rows(attempt.inputs["candidates"]))
        return run_chunks(job, rows, CHUNK, attempt, context, model=False)


@dataclass(frozen=True)
class _Combine:
    inputs: dict[str, Artifact]
    members: Mapping[str, tuple[str, float]]
    normalise: Normalise

    def build(self) -> Work:
        candidates = Rows(self.inputs["candidates"], COLUMNS[:1])
        tables = {name: Rows(self.inputs[f"member_{name}"], COLUMNS) for name in self.members}

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            queries = candidates.read(chunk)["query_id"].to_pylist()
            said = {name: rows.of_queries(queries) for name, rows in tables.items()}
            counts: Counter[str] = Counter()
            out = []
            for query_id in queries:
                lists = {name: _values(found.get(query_id, [])) for name, found in said.items()}
                if not all(lists.values()):
                    counts["queries_without_all_teachers"] += 1
                    continue
                doc_ids, values, left = combine(lists, self.members, self.normalise)
                counts["documents_without_all_teachers"] += left
                counts["pairs"] += len(doc_ids)
                out.append({"query_id": query_id, "doc_ids": doc_ids, "values": values})
            return pa.Table.from_pylist(out, schema=TEACHER), dict(counts)

        return work


def _values(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {d: v for row in rows for d, v in zip(row["doc_ids"], row["values"], strict=True)}


def combine(
    lists: Mapping[str, Mapping[str, float]],
    members: Mapping[str, tuple[str, float]],
    normalise: Normalise,
) -> tuple[list[str], Array, int]:
    """The documents that every member values, in the first member's order, and their mean value.

    Args:
        lists: value by document id, for every member; not empty.
        members: ("score" or "rank", weight) of every member; ranks count as their negative.
        normalise: applied to each member's values of the query, over the common documents.

    Returns:
        Document ids, float64 values (higher is better), and how many documents were left out.
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
