"""Parts that a comparison and a search share: the cluster, tracking, mining, the best model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from raypipe.commands.export import card_of
from raypipe.commands.result import Result
from raypipe.commands.teacher_quality import TeacherQuality, teacher_quality
from raypipe.config import flatten, to_yaml
from raypipe.recipe.evaluation_sets import MAIN
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import Trial
from raypipe.resources import Context, connect
from raypipe.storage.artifacts import Step
from raypipe.storage.builder import Builder
from raypipe.storage.claims import Claims
from raypipe.sweep.counters import behind, behind_lines, counts_line
from raypipe.sweep.plan import Plan, training_sets
from raypipe.tracking.relay import Relay
from raypipe.train.group_reader import GroupReader


def start_cluster(experiment: Experiment, builder: Builder, say: Callable[[str], None]) -> None:
    """Join or start Ray, and give the builder what it needs there."""
    connect(experiment.resources, builder.store.is_local, experiment.storage_shared)
    builder.announce = say
    builder.claim = Claims(say)
    builder.context = Context(
        experiment.resources, experiment.precision, progress_bars=sys.stderr.isatty()
    )


def tracked(
    experiment: Experiment, say: Callable[[str], None], work: Callable[[Relay, str], Result]
) -> Result:
    """Do the work inside a tracked run."""
    relay, public = Relay.open(experiment.tracking_uri(), experiment.name), experiment.public()
    tags = {"raypipe.reference": experiment.reference or "", "raypipe.mode": experiment.sweep.mode}
    run_id = relay.start(experiment.name, "job", None, flatten(public), tags)
    relay.send("watch", run_id)
    relay.send("log_text", run_id, to_yaml(public), "recipe.yaml")
    try:
        result = work(relay, run_id)
    except BaseException:
        relay.send("finish_below", run_id)
        relay.send("finish", run_id, "FAILED")
        relay.drain(say)
        raise
    relay.send("finish_below", run_id)  # trials that Tune stopped early
    relay.send("finish", run_id, result.status)
    result.tracked_run = relay.drain(say)["runs"].get(run_id, "")
    relay.close()
    return result


def teachers(
    experiment: Experiment, trials: Sequence[Trial], builder: Builder, say: Callable[[str], None]
) -> list[TeacherQuality]:
    """Measure every teacher on validation queries, before training lists are scored with it, and
    say it."""
    return teacher_quality(experiment, training_sets(trials), builder, say)


def mine(
    plan: Plan, roles: Sequence[str], builder: Builder, say: Callable[[str], None]
) -> dict[str, Any]:
    """Everything that trials share; says and returns the counts of every drop.

    Raises:
        ConfigError: what was mined cannot carry a stage, however late in its trial that comes.
    """
    first = plan.trials[0].experiment
    for step in plan.shared():
        builder.get(step)
    for stage in plan.stages.values():
        groups = GroupReader(builder.get(stage.groups).local())
        context = builder.context
        stage.check(groups, context.micro_batch_tokens(), use_gpu=context.device() == "cuda")
    for experiment in _re_ranked(plan):
        for role in roles:
            for step in experiment.reranking(role).steps().values():
                builder.get(step)
    steps: dict[str, Step] = {}
    for role in ("validation", *roles):
        steps[f"collection/{role}"] = first.collection(role)
        steps[f"queries/{role}"] = first.queries(role)
        steps[f"candidates/{role}"] = first.first_stage(role)
    sets = training_sets(plan.trials)
    for stages, data in sets.items():
        for name, step in data.steps().items():
            key = name.replace(" ", "_")
            steps[key if len(sets) == 1 else f"{key}/{stages}"] = step
    made_from = behind(steps, builder)
    for name, step in steps.items():
        say(counts_line(name, builder.get(step).counts))
    for line in behind_lines(made_from):
        say(line)
    found = {**{name: builder.get(step) for name, step in steps.items()}, **made_from}
    return {name: artifact.counts for name, artifact in found.items()}


def _re_ranked(plan: Plan) -> list[Experiment]:
    """One experiment per backbone and first stages: what is re-ranked depends on nothing else."""

    def key(one: Experiment) -> tuple[str, str, str]:
        first_stages = (one.candidates.model_dump_json(), one.evaluation.model_dump_json())
        return (one.model.backbone, *first_stages)

    return list({key(t.experiment): t.experiment for t in plan.trials}.values())


def log_inputs(
    experiment: Experiment, roles: Sequence[str], builder: Builder, relay: Relay, run: str
) -> None:
    """The query sets as MLflow inputs of the job."""
    sets = {**experiment.query_sets(), **{role: experiment.queries(role) for role in roles}}
    for use, queries in sets.items():
        artifact = builder.get(queries)
        kind = "training" if use.startswith("training") else use if use == "validation" else "test"
        relay.send("log_dataset", run, queries.name, artifact.uri, artifact.digest, kind)


def best_of(trials: Sequence[Trial], builder: Builder) -> Trial | None:
    """The one with the best validation value, of those whose checkpoint stands: test queries select
    nothing."""
    values: list[tuple[Trial, float]] = []
    for trial in trials:
        if (checkpoint := builder.find(trial.experiment.trained())) is not None:
            best: dict[str, float] = checkpoint.counts["best"]
            values.append((trial, best[trial.experiment.evaluation.selection]))
    return max(values, key=lambda one: one[1])[0] if values else None


def record_best(best: Trial, builder: Builder, relay: Relay, run: str) -> None:
    """The best trial's card and model; the server registers it under the recipe's name if new."""
    one = best.experiment
    relay.send("log_text", run, str(card_of(best, builder)), "README.md")
    relay.send("tag", run, {"raypipe.best": best.name})
    checkpoint = builder.get(one.trained())
    metrics = builder.get(one.metrics(one.run_of(one.trained()))).counts["means"]
    weights = (str(checkpoint.local()), "reranker", one.name, metrics, checkpoint.digest)
    relay.send("log_model", run, *weights)


def line_of(trial: Trial, builder: Builder) -> dict[str, str]:
    """One artifact per kind: the trial's own line from collection to metrics, as it stands."""
    found: dict[str, str] = {}

    def visit(step: Step) -> None:
        for one in {**step.inputs(), **step.needs()}.values():
            visit(one)
        if (artifact := builder.find(step)) is not None:
            found[step.kind] = artifact.uri

    experiment = trial.experiment
    visit(experiment.metrics(experiment.run_of(experiment.trained(), MAIN)))
    return dict(sorted(found.items()))
