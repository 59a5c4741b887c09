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

_NONE = "no checkpoint stands"


@dataclass(frozen=True)
class Question:
    """One stage of some trials, and the candidates for its values."""

    name: str
    stage: str
    candidates: tuple[Trial, ...]
    """The stage alone, once per combination of values."""
    values: tuple[tuple[Choice, ...], ...]
    """What each candidate sets."""


def questions(experiment: Experiment, trials: Sequence[Trial]) -> dict[tuple[str, str], Question]:
    """What is to be chosen, by (trial, stage); trials that ask the same share one question.

    Raises:
        ConfigError: a key names a stage that no trial has, or a value is not valid.
    """
    keys = experiment.sweep.select
    stages = {key.split(".")[1] for key in keys}
    known = {name for trial in trials for name in trial.experiment.stage_names}
    for name in sorted(stages - known):
        raise ConfigError(f"sweep.select: no trial has a stage {name!r}{nearest(name, known)}")
    first = trials[0].experiment.seed
    found: dict[tuple[str, str], Question] = {}
    shared: dict[str, Question] = {}
    for trial in trials:
        for stage in trial.experiment.stage_names:
            mine = {k: v for k, v in keys.items() if k.split(".")[1] == stage}
            if not mine:
                continue
            one = _question(trial, stage, mine, first)
            key = "|".join(c.experiment.trained().digest for c in one.candidates)
            found[trial.name, stage] = shared.setdefault(key, one)
    return found


def _question(trial: Trial, stage: str, keys: Mapping[str, Sequence[Any]], seed: int) -> Question:
    alone = trial.experiment.replace(
        order=(stage,), seed=seed, reference=None, sweep=trial.experiment.sweep.replace(select={})
    )
    labels = [f"{v}" for k, v in trial.values.items() if k not in (SEED, "order")]
    candidates, values = [], []
    for combination in itertools.product(*keys.values()):
        choices: tuple[Choice, ...] = tuple(
            (k, v if isinstance(v, str) else json.dumps(v), v)
            for k, v in zip(keys, combination, strict=True)
        )
        shown = ", ".join(f"{k.split('.', 2)[2]}={label}" for k, label, _ in choices)
        name = " / ".join(["select", *labels, stage, shown])
        candidates.append(trial_of(alone, choices, name))
        values.append(choices)
    title = " / ".join([*labels, stage])
    return Question(title, stage, tuple(candidates), tuple(values))


def candidates_of(asked: Mapping[tuple[str, str], Question]) -> list[Trial]:
    """Every candidate once."""
    distinct = {
        one.experiment.trained().digest: one
        for question in asked.values()
        for one in question.candidates
    }
    return list(distinct.values())


def answer(
    trials: Sequence[Trial],
    asked: Mapping[tuple[str, str], Question],
    builder: Builder,
    failed: Mapping[str, str],
) -> tuple[list[Trial], list[str], dict[str, str]]:
    """The trials with the chosen values; what was chosen, in sentences; the errors, by name, of
    trials for whose values every candidate failed.

    Of equally good values the first one is taken; a candidate that failed is none.
    """
    chosen: dict[str, tuple[Choice, ...]] = {}
    said = []
    lost: dict[str, str] = {}
    for question in dict.fromkeys(q.name for q in asked.values()):
        one = next(q for q in asked.values() if q.name == question)
        try:
            chosen[question], sentence = _best(one, builder, failed)
        except RuntimeError as error:
            lost |= {name: str(error) for (name, _), q in asked.items() if q.name == question}
        else:
            said.append(sentence)
    answered = []
    for trial in trials:
        if trial.name in lost:
            answered.append(trial)
            continue
        choices = [
            choice
            for stage in trial.experiment.stage_names
            if (trial.name, stage) in asked
            for choice in chosen[asked[trial.name, stage].name]
        ]
        again = trial_of(trial.experiment, choices)
        values = {key: value for key, _, value in choices}
        answered.append(replace(trial, experiment=again.experiment, chosen=values))
    return answered, said, lost


def _best(
    question: Question, builder: Builder, failed: Mapping[str, str]
) -> tuple[tuple[Choice, ...], str]:
    measure = question.candidates[0].experiment.evaluation.selection
    standing = [
        (builder.find(one.experiment.trained()), choices)
        for one, choices in zip(question.candidates, question.values, strict=True)
        if one.name not in failed
    ]
    scored = [(a.counts["best"][measure], c) for a, c in standing if a is not None]
    if not scored:
        raise RuntimeError(
            f"sweep.select: every value of {question.name} failed: "
            f"{next((failed[c.name] for c in question.candidates if c.name in failed), _NONE)}"
        )
    best = max(value for value, _ in scored)
    choices = next(c for value, c in scored if value == best)
    shown = "; ".join(
        f"{', '.join(label for _, label, _ in c)}: {value:.3f}" for value, c in scored
    )
    keys = ", ".join(f"{key.split('.', 2)[2]} {label}" for key, label, _ in choices)
    return choices, f"{question.name}: {keys} chosen by validation {measure} ({shown})"
