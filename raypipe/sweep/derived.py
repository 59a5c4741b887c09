"""Rows that cost no training: what seeds of one recipe say together, and with the first stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raypipe.artifacts import Builder, Step
from raypipe.config import ConfigError, digest
from raypipe.evaluation.report import Row
from raypipe.experiment import ARROW, Experiment, Role
from raypipe.inference.ensembles import SeedEnsembleRun
from raypipe.inference.interpolation import BestInterpolation, InterpolatedRun
from raypipe.inference.score import CrossEncoderRun
from raypipe.models.averages import AveragedWeights
from raypipe.sweep.compare import per_query
from raypipe.sweep.space import Trial
from raypipe.sweep.trial import trainer_facts

Derivation = Literal["seeds", "average", "interpolation"]


@dataclass(frozen=True)
class Derived:
    """One such row."""

    name: str
    trials: tuple[Trial, ...]
    """Whose checkpoints it needs."""
    run: Step
    """On test queries."""


def seed_sets(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Trials that differ in nothing but their seed, two or more, by the name without the seed."""
    sets: dict[str, list[Trial]] = {}
    for trial in trials:
        sets.setdefault(digest(trial.experiment.replace(seed=0)), []).append(trial)
    return {_set_name(one[0]): one for one in sets.values() if len(one) > 1}


def _set_name(trial: Trial) -> str:
    labels = [label for key, label in trial.values.items() if key != "seed"]
    return " / ".join(labels) or f" {ARROW} ".join(trial.experiment.stage_names)


def derived(trials: Sequence[Trial], wanted: Sequence[Derivation]) -> list[Derived]:
    """The rows of `evaluation.ensembles`, seed sets first.

    Raises:
        ConfigError: seeds are to be combined, but no two trials differ only in their seed.
    """
    sets = seed_sets(trials)
    if not sets and (needs := [one for one in wanted if one != "interpolation"]):
        raise ConfigError(
            f"evaluation.ensembles: {needs[0]} needs trials that differ only in their seed; add "
            "sweep.space.seed: [1, 2, 3]"
        )
    rows = []
    for name, members in sets.items():
        experiment, many = members[0].experiment, tuple(members)
        weights = [one.experiment.trained() for one in members]
        if "seeds" in wanted:
            rows.append(Derived(f"{len(many)} seeds: {name}", many, _ensemble(members, "test")))
        if "average" in wanted:
            run = experiment.run_of(AveragedWeights(tuple(weights)))
            rows.append(Derived(f"mean weights: {name}", many, run))
        if "seeds" in wanted and "interpolation" in wanted:
            mixed = _mixed(experiment, _ensemble(members, "test"), _ensemble(members, "validation"))
            rows.append(Derived(f"{len(many)} seeds + first stage: {name}", many, mixed))
    if "interpolation" in wanted:
        for trial in trials:
            last = trial.experiment.trained()
            runs = (trial.experiment.run_of(last, role) for role in ("test", "validation"))
            mixed = _mixed(trial.experiment, *runs)
            rows.append(Derived(f"{trial.name} + first stage", (trial,), mixed))
    return rows


def _ensemble(members: Sequence[Trial], role: Role) -> SeedEnsembleRun:
    return SeedEnsembleRun(
        tuple(one.experiment.run_of(one.experiment.trained(), role) for one in members)
    )


def _mixed(
    experiment: Experiment,
    test: CrossEncoderRun | SeedEnsembleRun,
    validation: CrossEncoderRun | SeedEnsembleRun,
) -> InterpolatedRun:
    return InterpolatedRun(test, BestInterpolation(validation, experiment.evaluation.selection))


def derived_row(one: Derived, builder: Builder, made: set[str]) -> Row:
    """Its row; pairs and seconds are those of all stages that it needs, each counted once."""
    experiment = one.trials[0].experiment
    metrics = builder.get(experiment.metrics(one.run))
    stages = {s.digest: s for t in one.trials for s in t.experiment.trained().chain()}
    facts: list[Mapping[str, Any]] = [trainer_facts(builder.get(s)) for s in stages.values()]
    return Row(
        one.name,
        "derived",
        experiment.stage_names,
        not stages.keys() & made,
        per_query(metrics),
        sum(int(f["pairs"]) for f in facts),
        sum(float(f["seconds"]) for f in facts),
    )
