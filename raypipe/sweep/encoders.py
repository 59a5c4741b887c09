"""Stages that are trained before a study's lists are there, because their models retrieve them."""

from __future__ import annotations

from collections.abc import Sequence

from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import Trial
from raypipe.storage.artifacts import Step
from raypipe.storage.builder import Builder
from raypipe.sweep.plan import Plan


def encoders_of(trials: Sequence[Trial]) -> list[Plan]:
    """The plans that train them, one after the other; each distinct stage once.

    A stage of a later plan may need lists of an earlier one's. Trials are named after the stages
    that they train.
    """
    plans: dict[int, Plan] = {}
    known: set[str] = set()
    names: set[str] = set()
    for trial in trials:
        for stage, waits in trial.experiment.encoders.items():
            chain = trial.experiment.encoder(stage)[1].chain()
            if chain[-1].digest in known:
                continue
            known.add(chain[-1].digest)
            name = f"vectors of {stage}"
            name = name if name not in names else f"{name} for {trial.name}"
            names.add(name)
            experiment = trial.experiment.for_encoder(stage)
            own = Plan([Trial(name, experiment, trial.values)], {name: chain})
            plans[waits] = Plan.joined([plans[waits], own]) if waits in plans else own
    return [plans[waits] for waits in sorted(plans)]


def trained_experiments(trials: Sequence[Trial]) -> list[Experiment]:
    """The experiments of the trials, and those that train the stages behind their lists."""
    before = [trial for plan in encoders_of(trials) for trial in plan.trials]
    return [trial.experiment for trial in (*trials, *before)]


def still_needed(plan: Plan, results: Sequence[Step], builder: Builder) -> Plan:
    """The trials whose stage stands, or must be trained for one of these results.

    A checkpoint that was deleted after everything behind it was made is not trained again.
    """
    missing: set[str] = set()
    seen: set[str] = set()

    def look(step: Step) -> None:
        if step.digest in seen:
            return
        seen.add(step.digest)
        if builder.find(step) is None:
            missing.add(step.digest)
            for below in {**step.inputs(), **step.needs()}.values():
                look(below)

    for step in results:
        look(step)
    return plan.only(
        [
            trial
            for trial in plan.trials
            if (last := plan.last(trial)).digest in missing or builder.find(last) is not None
        ]
    )
