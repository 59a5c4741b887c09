"""Parts that a comparison and a search share: mining, inputs, the best model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raypipe.artifacts import Builder, Step
from raypipe.experiment import Experiment
from raypipe.judging import MAIN
from raypipe.sweep.export import card_of
from raypipe.sweep.plan import Plan, training_sets
from raypipe.sweep.quality import teacher_quality
from raypipe.sweep.relay import Relay
from raypipe.sweep.space import Trial


def teachers(
    experiment: Experiment, trials: Sequence[Trial], builder: Builder, say: Callable[[str], None]
) -> None:
    """Measure every teacher on validation queries, before training lists are scored with it."""
    for quality in teacher_quality(experiment, training_sets(trials), builder):
        for line in quality.lines():
            say(line)


def mine(plan: Plan, roles: Sequence[str], builder: Builder) -> dict[str, Any]:
    """Everything that trials share, and the counts of every drop."""
    first = plan.trials[0].experiment
    for step in plan.shared():
        builder.get(step)
    for experiment in _by_backbone(plan):
        for role in roles:
            for step in experiment.reranking(role).steps().values():
                builder.get(step)
    counts: dict[str, Any] = {}
    for role in ("validation", *roles):
        counts[f"collection/{role}"] = builder.get(first.collection(role)).counts
        counts[f"queries/{role}"] = builder.get(first.queries(role)).counts
        counts[f"candidates/{role}"] = builder.get(first.first_stage(role)).counts
    sets = training_sets(plan.trials)
    for stages, data in sets.items():
        for name, step in data.steps().items():
            key = name.replace(" ", "_")
            counts[key if len(sets) == 1 else f"{key}/{stages}"] = builder.get(step).counts
    return counts


def _by_backbone(plan: Plan) -> list[Experiment]:
    """One experiment per backbone: what is re-ranked depends on nothing else of a trial."""
    return list({t.experiment.model.backbone: t.experiment for t in plan.trials}.values())


def log_inputs(
    experiment: Experiment, roles: Sequence[str], builder: Builder, relay: Relay, run: str
) -> None:
    """The query sets as MLflow inputs of the job."""
    sets = {**experiment.query_sets(), **{role: experiment.queries(role) for role in roles}}
    for use, queries in sets.items():
        artifact = builder.get(queries)
        kind = "training" if use.startswith("training") else use if use == "validation" else "test"
        relay.send("log_dataset", run, queries.name, artifact.uri, artifact.digest, kind)


def best_of(trials: Sequence[Trial], builder: Builder) -> Trial:
    """The one with the best validation value: test queries select nothing."""

    def value(trial: Trial) -> float:
        best: dict[str, float] = builder.get(trial.experiment.trained()).counts["best"]
        return best[trial.experiment.evaluation.selection]

    return max(trials, key=value)


def record_best(best: Trial, builder: Builder, relay: Relay, run: str, *, new: bool) -> None:
    """The best trial's card, and if it is new its model, registered under the recipe's name."""
    one = best.experiment
    relay.send("log_text", run, card_of(best, builder), "README.md")
    relay.send("tag", run, {"raypipe.best": best.name})
    if not new:  # the same weights would only be copied once more
        return
    checkpoint = builder.get(one.trained())
    metrics = builder.get(one.metrics(one.run_of(one.trained()))).counts["means"]
    relay.send("log_model", run, str(checkpoint.local()), "reranker", one.name, metrics)


def line_of(trial: Trial, builder: Builder) -> dict[str, str]:
    """One artifact per kind: the trial's own line from collection to metrics."""
    found: dict[str, str] = {}

    def visit(step: Step) -> None:
        for one in {**step.inputs(), **step.needs()}.values():
            visit(one)
        found[step.kind] = builder.get(step).uri

    experiment = trial.experiment
    visit(experiment.metrics(experiment.run_of(experiment.trained(), MAIN)))
    return dict(sorted(found.items()))
