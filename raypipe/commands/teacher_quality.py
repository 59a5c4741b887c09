"""How well a teacher ranks validation queries: what it is worth before anything is trained on it.

Only queries count whose list the teacher knows: a file that covers some of the validation queries
is judged by these queries, and so are the first stages beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from raypipe.config import ConfigError
from raypipe.datasets.steps import Queries
from raypipe.groups.training_set import TrainingData
from raypipe.inference.lists import Lists
from raypipe.progress import Say
from raypipe.recipe.experiment import Experiment
from raypipe.runs.baselines import TeacherRun
from raypipe.runs.metrics import Metrics
from raypipe.storage.artifacts import Artifact, Step
from raypipe.storage.builder import Builder
from raypipe.storage.copies import CopyError
from raypipe.sweep.counters import counts_line
from raypipe.tables.rows import Rows
from raypipe.teachers import Teacher
from raypipe.teachers.values import TeacherValues

MEASURE = "nDCG@10"
EFFECT = {
    "teacher": "what learns from it will hardly be",
    "filter teacher": "what it keeps out may be no false negative",
}
"""By role, what a teacher does that is not better than the first stage."""
BLOCK = 1024
"""Queries whose lists are Python objects at a time."""


@dataclass(frozen=True)
class TeacherQuality:
    """Means of nDCG@10 over the measured queries; None where there was too little to measure."""

    stages: str
    """The stages that train on this teacher's values."""
    teacher: str
    """The teacher's label; so are `lists` and `evaluated`."""
    lists: str
    """The first stage whose candidates the teacher sees in training."""
    depth: int
    teacher_value: float | None
    lists_value: float | None
    """Of the teacher's own first stage."""
    evaluated: str
    """The first stage whose candidates are re-ranked in the evaluation."""
    evaluated_value: float | None
    queries: int
    """Validation queries that are measured: the teacher knows half of their list or more."""
    of_queries: int
    """All validation queries."""
    why: str = ""
    """Why there is no value."""
    role: str = "teacher"
    """Or `filter teacher`, whose scores keep false negatives out."""

    def lines(self) -> list[str]:
        """For people: the figures, then a warning for every figure that should worry."""
        if self.teacher_value is None or self.lists_value is None or self.evaluated_value is None:
            return [f"{self.role} of {self.stages} ({self.teacher}): not measured, {self.why}"]
        own_order = self.teacher_value == self.lists_value
        itself = "" if own_order else f", {self.lists} itself {self.lists_value:.3f}"
        lines = [
            f"{self.role} of {self.stages} ({self.teacher}), first {self.depth} of {self.lists}: "
            f"{MEASURE} on {self.queries} of {self.of_queries} validation queries "
            f"{self.teacher_value:.3f}{itself}; {self.evaluated}, which is evaluated, "
            f"{self.evaluated_value:.3f}"
        ]
        # lists that are in the teacher's order already (a published re-ranking) have no value of
        # their own to compare with
        if self.teacher_value <= (self.evaluated_value if own_order else self.lists_value):
            lines.append(
                f"WARNING: the {self.role} of {self.stages} is not better than the first stage; "
                f"{EFFECT[self.role]}"
            )
        if self.lists_value < self.evaluated_value:
            lines.append(
                f"WARNING: the teacher's lists come from {self.lists} ({self.lists_value:.3f}), "
                f"weaker than the evaluated first stage {self.evaluated} "
                f"({self.evaluated_value:.3f}); teacher lists must be as strong as what is "
                "re-ranked (Schlatt et al. 2405.07920)"
            )
        return lines

    def summary(self) -> Mapping[str, Any]:
        """For `--summary`: every field, and the warnings."""
        return {**vars(self), "warnings": self.lines()[1:]}


def teacher_quality(
    experiment: Experiment,
    sets: Mapping[str, TrainingData],
    builder: Builder,
    say: Say = lambda line: None,
) -> list[TeacherQuality]:
    """Measure the teachers of every training set, the filters' teachers too; say what was found.

    Only validation lists are scored: call this before the training lists are, which may cost much.
    """
    qualities = []
    for stages, data in sets.items():
        for role, teacher in _teachers(data).items():
            measured = _Measured(experiment, data, teacher, builder, say)
            qualities.append(measured.quality(stages, role))
            for line in qualities[-1].lines():
                say(line)
    return qualities


def quality_steps(
    experiment: Experiment, sets: Mapping[str, TrainingData], builder: Builder
) -> Iterator[Step]:
    """The steps that `teacher_quality` reads; none is made."""
    for data in sets.values():
        for teacher in _teachers(data).values():
            yield from _Measured(experiment, data, teacher, builder, lambda line: None).steps()


def _teachers(data: TrainingData) -> dict[str, Teacher]:
    """The distinct teachers of a training set, by role."""
    roles = {"teacher": data.teacher, "filter teacher": data.filter_teacher}
    if roles["filter teacher"] == data.teacher:
        del roles["filter teacher"]
    return {role: teacher for role, teacher in roles.items() if teacher is not None}


@dataclass(frozen=True)
class _Measured:
    """A teacher on the validation queries, in the lists that it sees in training."""

    experiment: Experiment
    data: TrainingData
    teacher: Teacher
    builder: Builder
    say: Say

    def quality(self, stages: str, role: str) -> TeacherQuality:
        values: dict[str, float] = {}
        known: set[str] = set()
        every = self.builder.get(self._queries).counts["queries"]
        why = ""
        try:
            lists, scores = self._lists(), self._scores()
            known = covered(self.builder.get(lists), self.builder.get(scores), self._depth)
            counts = self.builder.get(scores).counts
            self.say(counts_line(f"validation scores of the {role} of {stages}", counts))
            if 2 * len(known) < every:  # the other lists would keep the first stage's order
                why = f"it knows the lists of {len(known)} of {every} validation queries only"
            else:
                values = {name: self._mean(run, known) for name, run in self._runs().items()}
        except CopyError:
            raise
        except ConfigError as error:  # a file that holds training queries only
            why = str(error)
        return TeacherQuality(
            stages=stages,
            role=role,
            teacher=self.teacher.title,
            lists=self.data.source.label,
            depth=self._depth,
            evaluated=self.experiment.candidates.label,
            queries=len(known),
            of_queries=every,
            why=why,
            **{name: values.get(name) for name in self._runs()},
        )

    @property
    def _queries(self) -> Queries:
        return self.experiment.queries("validation")

    @property
    def _depth(self) -> int:
        return min(self.experiment.evaluation.validation_depth, self.data.source.depth)

    def _lists(self) -> Step:
        collection = self.experiment.collection("validation")
        return self.data.retrieved(self.data.source, collection, self._queries)

    def _scores(self) -> Step:
        collection = self.experiment.collection("validation")
        lists = Lists(self._lists(), None, collection, self._queries, self._depth)
        return self.teacher.scores(lists, self.experiment.precision)

    def _runs(self) -> dict[str, Step]:
        """Runs of the validation queries, by the field of `TeacherQuality` that has their mean."""
        lists = (self._lists(), self._queries, self._depth)
        return {
            "teacher_value": TeacherRun(self._scores(), self.teacher.values, *lists),
            "lists_value": self._lists(),
            "evaluated_value": self.experiment.first_stage("validation"),
        }

    def steps(self) -> list[Step]:
        return [self._metrics(run) for run in self._runs().values()]

    def _metrics(self, run: Step) -> Metrics:
        return Metrics(run, self._queries, (MEASURE,))

    def _mean(self, run: Step, measured: Set[str]) -> float:
        table = self.builder.get(self._metrics(run)).table()
        columns = (table[name].to_pylist() for name in ("query_id", "value"))
        values = [value for query_id, value in zip(*columns, strict=True) if query_id in measured]
        return sum(values) / len(values)


def covered(lists: Artifact, scores: Artifact, depth: int) -> set[str]:
    """The queries with a list of whose first `depth` documents the teacher knows half or more."""
    rows, values = Rows(lists, ["query_id", "doc_ids"]), TeacherValues(scores)
    queries = set()
    for start in range(0, len(rows), BLOCK):
        block = rows.read(range(start, min(start + BLOCK, len(rows)))).to_pylist()
        values_by_query = values.of_queries(row["query_id"] for row in block)
        for row in block:
            head, by_doc = row["doc_ids"][:depth], values_by_query.get(row["query_id"], {})
            known = sum(math.isfinite(by_doc.get(doc_id, math.nan)) for doc_id in head)
            if head and 2 * known >= len(head):
                queries.add(row["query_id"])
    return queries
