"""Values that validation queries choose before a comparison, such as each objective's rate.

For every stage of every trial, whatever else varies, the stage is trained alone with the first seed
and every value; the best validation decides. Test queries are not read. The stage that was chosen
is the first seed's own, so it is not trained again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raypipe.config import ConfigError, nearest
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.space import SEED
from raypipe.recipe.trials import Choice, Trial, trial_of
from raypipe.storage.builder import Builder
from raypipe.sweep.plan import Plan

Questions = Mapping[tuple[str, str], "Question"]
"""(trial name, stage name) to the question whose answer the stage takes."""


@dataclass(frozen=True)
class Question:
    """Which values one stage of some trials takes."""

    name: str
    candidates: Plan
    """The stage alone, once per combination of values."""
    values: tuple[tuple[Choice, ...], ...]
    """What each candidate sets."""

    @property
    def digests(self) -> tuple[str, ...]:
        """The candidates' stages: trials whose digests are equal ask the same."""
        return tuple(self.candidates.last(trial).digest for trial in self.candidates.trials)


@dataclass(frozen=True)
class Answers:
    """The trials of a comparison with the values that validation queries chose."""

    trials: list[Trial]
    """In order; a trial without an answer is as it was."""
    sentences: list[str]
    """What was chosen for each question, and among which values."""
    errors: dict[str, str]
    """By name of the trials for whose values every candidate failed."""


def questions(experiment: Experiment, trials: Sequence[Trial]) -> Questions:
    """What `sweep.select` asks; trials that ask the same share one question.

    Raises:
        ConfigError: a key names a stage that no trial has, or a value is not valid.
    """
    keys = experiment.sweep.select
    known = {name for trial in trials for name in trial.experiment.stage_names}
    for name in sorted({_stage_of(key) for key in keys} - known):
        raise ConfigError(f"sweep.select: no trial has a stage {name!r}{nearest(name, known)}")
    first_seed = trials[0].experiment.seed
    asked: dict[tuple[str, str], Question] = {}
    distinct: dict[tuple[str, ...], Question] = {}
    for trial in trials:
        for stage in trial.experiment.stage_names:
            stage_keys = {key: keys[key] for key in keys if _stage_of(key) == stage}
            if stage_keys:
                question = _question(trial, stage, stage_keys, first_seed)
                asked[trial.name, stage] = distinct.setdefault(question.digests, question)
    return asked


def _stage_of(key: str) -> str:
    """`contrastive` of `stages.contrastive.lr`."""
    return key.split(".")[1]


def _field_of(key: str) -> str:
    """`loss.margin` of `stages.contrastive.loss.margin`."""
    return key.split(".", 2)[2]


def _question(trial: Trial, stage: str, keys: Mapping[str, Sequence[Any]], seed: int) -> Question:
    alone = trial.experiment.replace(
        order=(stage,), seed=seed, reference=None, sweep=trial.experiment.sweep.replace(select={})
    )
    labels = [label for key, label in trial.values.items() if key not in (SEED, "order")]
    candidates, values = [], []
    for combination in itertools.product(*keys.values()):
        choices: tuple[Choice, ...] = tuple(
            (key, value if isinstance(value, str) else json.dumps(value), value)
            for key, value in zip(keys, combination, strict=True)
        )
        settings = ", ".join(f"{_field_of(key)}={label}" for key, label, _ in choices)
        name = " / ".join(["select", *labels, stage, settings])
        candidates.append(trial_of(alone, choices, name))
        values.append(choices)
    return Question(" / ".join([*labels, stage]), Plan.of(candidates), tuple(values))


def candidates_of(asked: Questions) -> Plan:
    """The candidates of all questions, each stage once, though several questions may try it."""
    distinct = {question.digests: question for question in asked.values()}
    plan = Plan.joined(question.candidates for question in distinct.values())
    return plan.only(list({plan.last(trial).digest: trial for trial in plan.trials}.values()))


def answer(
    trials: Sequence[Trial], asked: Questions, builder: Builder, failed: Mapping[str, str]
) -> Answers:
    """Choose the value with the best validation for every question.

    Of equally good values the first one is taken; a candidate that failed has no validation.

    Args:
        failed: name of a candidate to its error.
    """
    chosen: dict[str, tuple[Choice, ...]] = {}
    answers = Answers([], [], {})
    for question in {question.name: question for question in asked.values()}.values():
        try:
            chosen[question.name], sentence = _best(question, builder, failed)
            answers.sentences.append(sentence)
        except RuntimeError as error:
            users = [name for (name, _), other in asked.items() if other.name == question.name]
            answers.errors.update(dict.fromkeys(users, str(error)))
    for trial in trials:
        if trial.name in answers.errors:
            answers.trials.append(trial)
            continue
        choices = [
            choice
            for stage in trial.experiment.stage_names
            if (trial.name, stage) in asked
            for choice in chosen[asked[trial.name, stage].name]
        ]
        experiment = trial_of(trial.experiment, choices).experiment
        values = {key: value for key, _, value in choices}
        answers.trials.append(replace(trial, experiment=experiment, chosen=values))
    return answers


def _best(
    question: Question, builder: Builder, failed: Mapping[str, str]
) -> tuple[tuple[Choice, ...], str]:
    """The values of the best candidate, and a sentence that says so.

    Raises:
        RuntimeError: no candidate of the question has a checkpoint.
    """
    plan = question.candidates
    measure = plan.trials[0].experiment.compared_by
    validated: list[tuple[float, tuple[Choice, ...]]] = []
    for trial, choices in zip(plan.trials, question.values, strict=True):
        checkpoint = None if trial.name in failed else builder.find(plan.last(trial))
        if checkpoint is not None:
            validated.append((checkpoint.counts["best"][measure], choices))
    if not validated:
        errors = [failed[trial.name] for trial in plan.trials if trial.name in failed]
        raise RuntimeError(
            f"sweep.select: every value of {question.name} failed: "
            f"{errors[0] if errors else 'no checkpoint stands'}"
        )
    _, best = max(validated, key=lambda pair: pair[0])  # the first of equal ones
    values = "; ".join(
        f"{', '.join(label for _, label, _ in choices)}: {value:.3f}"
        for value, choices in validated
    )
    settings = ", ".join(f"{_field_of(key)} {label}" for key, label, _ in best)
    return best, f"{question.name}: {settings} chosen by validation {measure} ({values})"
