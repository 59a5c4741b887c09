"""What a teacher is worth before anything is trained on it: its ranking of validation queries.

Only queries count whose list the teacher knows: a file that covers some of the validation queries
is judged by those, with the first stages on the same ones beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from raypipe.artifacts import Artifact, Builder, Step
from raypipe.config import ConfigError
from raypipe.data.sets import Queries
from raypipe.experiment import Experiment
from raypipe.inference.lists import Lists
from raypipe.inference.metrics import Metrics, TeacherRun
from raypipe.inference.rows import Rows
from raypipe.inference.teacher_values import TeacherValues
from raypipe.training_set import TrainingData

MEASURE = "nDCG@10"
BLOCK = 1024
"""Queries whose lists are Python objects at a time."""


@dataclass(frozen=True)
class TeacherQuality:
    """Means of nDCG@10 over the measured queries; None where there was too little to measure."""

    stages: str
    """The stages that train on this teacher's values."""
    teacher: str
    lists: str
    """The first stage whose candidates the teacher sees in training."""
    depth: int
    teacher_value: float | None
    lists_value: float | None
    """Of the teacher's own first stage."""
    evaluated: str
    evaluated_value: float | None
    """Of the first stage that is evaluated."""
    queries: int
    """Validation queries that are measured: those whose list the teacher mostly knows."""
    of_queries: int
    """All validation queries."""
    why: str = ""
    """Why there is no value."""

    def lines(self) -> list[str]:
        """For people: the figures, then a warning for each that should worry."""
        if self.teacher_value is None or self.lists_value is None or self.evaluated_value is None:
            return [f"teacher of {self.stages} ({self.teacher}): not measured, {self.why}"]
        own_order = self.teacher_value == self.lists_value
        itself = "" if own_order else f", {self.lists} itself {self.lists_value:.3f}"
        said = [
            f"teacher of {self.stages} ({self.teacher}), first {self.depth} of {self.lists}: "
            f"{MEASURE} on {self.queries} of {self.of_queries} validation queries "
            f"{self.teacher_value:.3f}{itself}; {self.evaluated}, which is evaluated, "
            f"{self.evaluated_value:.3f}"
        ]
        # lists that are in the teacher's order already (a published re-ranking) have no value of
        # their own to compare with
        if self.teacher_value <= (self.evaluated_value if own_order else self.lists_value):
            said.append(
                f"WARNING: the teacher of {self.stages} is not better than the first stage; what "
                "learns from it will hardly be"
            )
        if self.lists_value < self.evaluated_value:
            said.append(
                f"WARNING: the teacher's lists come from {self.lists} ({self.lists_value:.3f}), "
                f"weaker than the evaluated first stage {self.evaluated} "
                f"({self.evaluated_value:.3f}); teacher lists must be as strong as what is "
                "re-ranked (Schlatt et al. 2405.07920)"
            )
        return said

    def summary(self) -> Mapping[str, Any]:
        return {**vars(self), "warnings": self.lines()[1:]}


def teacher_quality(
    experiment: Experiment, sets: Mapping[str, TrainingData], builder: Builder
) -> list[TeacherQuality]:
    """Measure the teacher of every training set that has one."""
    found = []
    for stages, data in sets.items():
        if data.teacher is not None:
            found.append(_measure(experiment, stages, data, builder))
    return found


def _measure(
    experiment: Experiment, stages: str, data: TrainingData, builder: Builder
) -> TeacherQuality:
    teacher = data.teacher
    assert teacher is not None
    collection, queries = experiment.collection("validation"), experiment.queries("validation")
    depth = min(experiment.evaluation.validation_depth, data.source.depth)
    every = builder.get(queries).counts["queries"]
    values: dict[str, float] = {}
    known: set[str] = set()
    why = ""
    try:
        lists = data.source.candidates(collection, queries, experiment.precision)
        asked = Lists(lists, None, collection, queries, depth)
        scores = teacher.scores(asked, experiment.precision)
        known = covered(builder.get(lists), builder.get(scores), depth)
        if 2 * len(known) < every:  # the others keep first-stage order: no judgement of the teacher
            why = f"it knows the lists of {len(known)} of {every} validation queries only"
        else:
            ranked = TeacherRun(scores, teacher.values, lists, queries, depth)
            runs = {"teacher_value": ranked, "lists_value": lists}
            runs["evaluated_value"] = experiment.first_stage("validation")
            values = {name: _mean(builder, run, queries, known) for name, run in runs.items()}
    except ConfigError as error:  # a file that holds training queries only
        why = str(error)
    return TeacherQuality(
        stages,
        teacher.label,
        data.source.label,
        depth,
        values.get("teacher_value"),
        values.get("lists_value"),
        experiment.candidates.label,
        values.get("evaluated_value"),
        len(known),
        every,
        why,
    )


def covered(lists: Artifact, teacher: Artifact, depth: int) -> set[str]:
    """The queries with a list, of whose first `depth` documents the teacher knows half or more."""
    rows, said = Rows(lists, ["query_id", "doc_ids"]), TeacherValues(teacher)
    found = set()
    for start in range(0, len(rows), BLOCK):
        part = rows.read(range(start, min(start + BLOCK, len(rows)))).to_pylist()
        values = said.of_queries(row["query_id"] for row in part)
        for row in part:
            head, finite = row["doc_ids"][:depth], values.get(row["query_id"], {})
            there = sum(math.isfinite(finite.get(doc_id, math.nan)) for doc_id in head)
            if head and 2 * there >= len(head):
                found.add(row["query_id"])
    return found


def _mean(builder: Builder, run: Step, queries: Queries, measured: Set[str]) -> float:
    table = builder.get(Metrics(run, queries, (MEASURE,))).table()
    columns = (table[name].to_pylist() for name in ("query_id", "value"))
    values = [value for query_id, value in zip(*columns, strict=True) if query_id in measured]
    return sum(values) / len(values)
