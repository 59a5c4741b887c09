"""The mining job: candidates, negatives, teacher scores and groups of a recipe, with counts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raypipe.commands.checks import check_held_out
from raypipe.commands.teacher_quality import TeacherQuality, teacher_quality
from raypipe.recipe.experiment import Experiment, Role
from raypipe.recipe.trials import expand
from raypipe.resources import Context, connect
from raypipe.storage.artifacts import Artifact, Step
from raypipe.storage.builder import Builder
from raypipe.storage.claims import Claims
from raypipe.sweep.counters import behind, behind_lines, counts_line
from raypipe.sweep.plan import training_sets

ROLES: tuple[Role, ...] = ("train", "validation", "test")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Mined:
    """What stands after the job."""

    artifacts: Mapping[str, Artifact]
    """By what they are, such as `negatives of contrastive`."""
    qualities: list[TeacherQuality]
    behind: Mapping[str, Artifact] = field(default_factory=dict)
    """What those were made from, by the way to it."""
    failed: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        return {
            "artifacts": {name: one.uri for name, one in self.artifacts.items()},
            "counts": {n: one.counts for n, one in {**self.artifacts, **self.behind}.items()},
            "teachers": [dict(one.summary()) for one in self.qualities],
        }


def steps_of(experiment: Experiment) -> dict[str, Step]:
    """What the recipe mines, in order: what is evaluated, then every distinct training set."""
    found: dict[str, Step] = {}
    for role in ROLES[1:]:
        found[f"{role} collection"] = experiment.collection(role)
        found[f"{role} queries"] = experiment.queries(role)
        found[f"{role} candidates"] = experiment.first_stage(role)
    for stages, data in training_sets(expand(experiment)).items():
        for name, step in data.steps().items():
            found[f"{name} of {stages}"] = step
    distinct: dict[str, str] = {}
    for name, step in found.items():
        distinct.setdefault(step.digest, name)
    return {name: step for name, step in found.items() if distinct[step.digest] == name}


def plan_of(experiment: Experiment) -> tuple[dict[str, Step], Builder]:
    """The steps, checked, and a builder on their store; needs no cluster."""
    for trial in expand(experiment):
        trial.experiment.check(model=False)
    return steps_of(experiment), Builder(experiment.store())


def run(experiment: Experiment, say: Say = print) -> Mined:
    """Mine everything that the recipe's stages train on and are evaluated on.

    Raises:
        ConfigError: before any work, if something the recipe names is not usable.
    """
    steps, builder = plan_of(experiment)
    builder.announce = say
    check_held_out([trial.experiment for trial in expand(experiment)], builder)
    connect(experiment.resources, builder.store.is_local, experiment.storage_shared)
    builder.claim = Claims(say)
    builder.context = Context(
        experiment.resources, experiment.precision, progress_bars=sys.stderr.isatty()
    )
    # first, so that a bad teacher is known before its scores of all training lists are paid for
    qualities = teacher_quality(experiment, training_sets(expand(experiment)), builder, say)
    artifacts = {name: builder.get(step) for name, step in steps.items()}
    made_from = behind(steps, builder)
    for name, artifact in artifacts.items():
        say(counts_line(name, artifact.counts))
    for line in [*behind_lines(made_from), *(one for q in qualities for one in q.lines())]:
        say(line)
    return Mined(artifacts, qualities, made_from)


def plan_lines(steps: Mapping[str, Step], builder: Builder) -> list[str]:
    """What would be made, and what is there."""
    return [
        f"{'there' if builder.find(step) is not None else 'to do'}  {name}  {step.path}"
        for name, step in steps.items()
    ]
