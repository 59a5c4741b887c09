"""What a teacher is worth before anything is trained on it: its ranking of validation queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raypipe.artifacts import Artifact, Builder, Step
from raypipe.config import ConfigError
from raypipe.experiment import Experiment
from raypipe.inference.lists import Lists
from raypipe.inference.metrics import Metrics, TeacherRun
from raypipe.inference.rows import Rows
from raypipe.training_set import TrainingData

MEASURE = "nDCG@10"


@dataclass(frozen=True)
class TeacherQuality:
    """Means of nDCG@10 on the validation queries; None where there was nothing to measure."""

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
    evaluated_value: float
    """Of the first stage that is evaluated."""
    why: str = ""
    """Why there is no value."""

    def lines(self) -> list[str]:
        """For people: the figures, then a warning for each that should worry."""
        if self.teacher_value is None or self.lists_value is None:
            return [f"teacher of {self.stages} ({self.teacher}): not measured, {self.why}"]
        own_order = self.teacher_value == self.lists_value
        itself = "" if own_order else f", {self.lists} itself {self.lists_value:.3f}"
        said = [
            f"teacher of {self.stages} ({self.teacher}), first {self.depth} of {self.lists}: "
            f"validation {MEASURE} {self.teacher_value:.3f}{itself}; {self.evaluated}, which is "
            f"evaluated, {self.evaluated_value:.3f}"
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

    def mean(run: Step) -> float:
        return float(builder.get(Metrics(run, queries, (MEASURE,))).counts["means"][MEASURE])

    taught = own = None
    why = ""
    try:
        lists = data.source.candidates(collection, queries, experiment.precision)
        own = mean(lists)
        scores = teacher.scores(
            Lists(lists, None, collection, queries, depth), experiment.precision
        )
        ranked = TeacherRun(scores, teacher.values, lists, queries, depth)
        taught = mean(ranked)
        unknown = builder.get(ranked).counts["documents_unknown_to_teacher"]
        asked = sum(min(len(ids), depth) for ids in _doc_ids(builder.get(lists)))
        if unknown > asked / 2:  # the rest keeps its first-stage order: no judgement of the teacher
            taught, why = None, f"it knows {asked - unknown} of {asked} validation candidates only"
    except ConfigError as error:  # a file that holds training queries only
        why = str(error)
    return TeacherQuality(
        stages,
        teacher.label,
        data.source.label,
        depth,
        taught,
        own,
        experiment.candidates.label,
        mean(experiment.first_stage("validation")),
        why,
    )


def _doc_ids(lists: Artifact) -> list[list[str]]:
    rows = Rows(lists, ["doc_ids"])
    ids: list[list[str]] = rows.read(range(len(rows)))["doc_ids"].to_pylist()
    return ids
