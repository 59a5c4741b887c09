"""A job from recipe to table: mine once, train every distinct stage once, evaluate, compare."""

from __future__ import annotations

import dataclasses
import functools
import sys
import traceback
from collections.abc import Callable
from typing import Any

from raypipe.artifacts import Builder, Step
from raypipe.claims import Claims
from raypipe.config import ConfigError, flatten, to_yaml
from raypipe.experiment import Experiment, Role
from raypipe.resources import Context, connect
from raypipe.sweep.compare import Result, baselines, heading, publish, trained_row
from raypipe.sweep.derived import derived, derived_row
from raypipe.sweep.export import card_of
from raypipe.sweep.plan import Plan, Readiness, training_sets
from raypipe.sweep.quality import teacher_quality
from raypipe.sweep.relay import Relay
from raypipe.sweep.space import Trial, expand
from raypipe.sweep.trial import run_trial
from raypipe.tracking import Tracker

Say = Callable[[str], None]


def plan_of(experiment: Experiment) -> tuple[Plan, Builder]:
    """The trials, checked, and a builder on their store; needs no cluster."""
    trials = expand(experiment)
    derived(trials, experiment.evaluation.ensembles)  # an error now, not after training
    for trial in trials:
        trial.experiment.check()
    return Plan.of(trials), Builder(experiment.store())


def run(experiment: Experiment, say: Say = print) -> Result:
    """Run every trial of the recipe and report.

    Raises:
        ConfigError: before any work, if something the recipe names is not usable.
        RuntimeError: all trials failed.
    """
    plan, builder = plan_of(experiment)
    for trial in plan.trials:  # an empty split is found before Ray starts
        for step in trial.experiment.query_sets():
            builder.get(step)
    connect(experiment.resources, builder.store.is_local, experiment.storage_shared)
    builder.announce = say
    builder.claim = Claims(say)
    builder.context = Context(
        experiment.resources, experiment.precision, progress_bars=sys.stderr.isatty()
    )
    for line in plan.summary(lambda step: builder.find(step) is not None):
        say(line)
    tracker = Tracker.open(experiment.tracking_uri(), experiment.name)
    relay = Relay.open(tracker)
    run_id = relay.start(experiment.name, "job", None, flatten(experiment), {})
    relay.send("log_text", run_id, to_yaml(experiment), "recipe.yaml")
    try:
        result = _run(experiment, plan, builder, relay, run_id, say)
    except BaseException:
        relay.send("finish", run_id, "FAILED")
        relay.flush()
        raise
    relay.send("finish", run_id)
    if lost := relay.flush():
        say(f"tracking: {lost} calls did not reach {tracker.uri}")
    return result


def _run(
    experiment: Experiment, plan: Plan, builder: Builder, relay: Relay, run_id: str, say: Say
) -> Result:
    first = plan.trials[0].experiment
    counts = _mine(first, plan, builder)
    for quality in teacher_quality(first, training_sets(plan.trials), builder):
        for line in quality.lines():
            say(line)
    _log_inputs(first, builder, relay, run_id)
    rows = baselines(first, builder)
    missing = {d for d, stage in plan.stages.items() if builder.find(stage) is None}
    failed = _run_trials(plan, builder, relay, run_id, say)
    made = {d for d in missing if builder.find(plan.stages[d]) is not None}
    rows += [trained_row(t, builder, made) for t in plan.trials if t.name not in failed]
    for one in derived(plan.trials, first.evaluation.ensembles):
        if lost := [t.name for t in one.trials if t.name in failed]:
            say(f"no row {one.name!r}: {lost[0]} failed")
        else:
            rows.append(derived_row(one, builder, made))
    if len(failed) == len(plan.trials):
        raise RuntimeError("every trial failed:\n" + "\n".join(failed.values()))
    lines = publish(heading(first, counts), rows, experiment, relay, run_id)
    for name, error in failed.items():
        say(f"FAILED {name}: {error}")
    best = _best(plan, builder, experiment, failed)
    relay.send("log", run_id, {"stages_trained": len(made), "trials_failed": len(failed)})
    checkpoint = builder.get(best.experiment.trained())
    relay.send("log_text", run_id, card_of(best, builder), "README.md")
    if made:  # the same weights would only be copied once more
        relay.send("log_model", run_id, str(checkpoint.local()), "reranker")
    counts["stages"] = {"distinct": len(plan.stages), "trained": len(made)}
    return Result(run_id, lines, _artifacts(best, builder), counts, failed)


def _mine(experiment: Experiment, plan: Plan, builder: Builder) -> dict[str, Any]:
    """Everything that trials share, and the counts of every drop."""
    for step in plan.shared():
        builder.get(step)
    for trial in plan.trials:
        for step in trial.experiment.reranking("test").steps().values():
            builder.get(step)
    counts: dict[str, Any] = {}
    roles: tuple[Role, ...] = ("validation", "test")
    for role in roles:
        counts[f"collection/{role}"] = builder.get(experiment.collection(role)).counts
        counts[f"queries/{role}"] = builder.get(experiment.queries(role)).counts
        counts[f"candidates/{role}"] = builder.get(experiment.first_stage(role)).counts
    sets = training_sets(plan.trials)
    for stages, data in sets.items():
        for name, step in data.steps().items():
            key = name.replace(" ", "_")
            counts[key if len(sets) == 1 else f"{key}/{stages}"] = builder.get(step).counts
    return counts


def _log_inputs(experiment: Experiment, builder: Builder, relay: Relay, run_id: str) -> None:
    *training, validation, test = experiment.query_sets()
    uses = [*((one, "training") for one in training), (validation, "validation"), (test, "test")]
    for queries, context in uses:
        artifact = builder.get(queries)
        relay.send("log_dataset", run_id, queries.name, artifact.uri, artifact.digest, context)


def _run_trials(
    plan: Plan, builder: Builder, relay: Relay, run_id: str, say: Say
) -> dict[str, str]:
    """Run all trials; returns the errors of those that failed, by name."""
    done = [i for i in range(len(plan.trials)) if builder.find(_metrics(plan, i)) is not None]
    for position in done:
        run_trial(plan.trials[position], builder, relay, run_id)
    waiting = [i for i in range(len(plan.trials)) if i not in done]
    if not waiting:
        return {}
    resources = builder.context.resources.for_trials(len(waiting))
    resources.slots()  # too little for even one is an error now
    builder.context = dataclasses.replace(builder.context, resources=resources)
    if len(waiting) == 1:  # Tune would add nothing but its start
        (position,) = waiting
        return _guarded(plan.trials[position], builder, relay, run_id)
    return _tune(plan, waiting, builder, relay, run_id)


def _metrics(plan: Plan, position: int) -> Step:
    experiment = plan.trials[position].experiment
    return experiment.metrics(experiment.run_of(plan.chains[position][-1]))


def _guarded(trial: Trial, builder: Builder, relay: Relay, run_id: str) -> dict[str, str]:
    try:
        run_trial(trial, builder, relay, run_id)
    except ConfigError:
        raise
    except Exception as error:
        return {trial.name: _last_line(error)}
    return {}


def _tune(
    plan: Plan, waiting: list[int], builder: Builder, relay: Relay, run_id: str
) -> dict[str, str]:
    """Trials through Ray Tune, each a driver function with Train inside it."""
    import ray
    from ray import tune

    from raypipe.sweep.search import PlannedSearch

    context: Context = builder.context
    store = builder.store
    slots = context.resources.slots()
    share = max(int(ray.cluster_resources().get("CPU", 1) / slots), 1)
    inner = context.resources.replace(actors=context.resources.actors or share)
    trainable = functools.partial(
        _trainable,
        trials=list(plan.trials),
        store=store,
        context=dataclasses.replace(context, resources=inner, progress_bars=False),
        relay=relay,
        parent=run_id,
    )
    readiness = Readiness(plan, lambda step: store.find(step) is not None, waiting)
    count = len(waiting)
    results = tune.Tuner(
        # a trial only waits for its training; CPUs would be taken from that
        tune.with_resources(trainable, {"cpu": 0, "memory": 1 << 20}),
        tune_config=tune.TuneConfig(
            num_samples=count,
            search_alg=PlannedSearch(readiness),
            max_concurrent_trials=slots,
        ),
        run_config=tune.RunConfig(
            name=f"{plan.trials[0].experiment.name}-{run_id[:8] or 'untracked'}",
            storage_path=f"{store.uri.rstrip('/')}/.tune",
            verbose=0,
        ),
    ).fit()
    failed = {}
    for result in results:
        name = plan.trials[result.config["trial"]].name if result.config else "?"
        if result.error is not None:
            failed[name] = _last_line(result.error)
    return failed


def _trainable(
    config: dict[str, Any],
    trials: list[Trial],
    store: Any,
    context: Context,
    relay: Relay,
    parent: str,
) -> None:
    from ray import tune

    builder = Builder(store, context, _print, Claims(_print))
    metrics = run_trial(trials[config["trial"]], builder, relay, parent)
    tune.report({**metrics.counts["means"]})


def _print(line: str) -> None:
    print(line, flush=True)


def _last_line(error: BaseException) -> str:
    text = "".join(traceback.format_exception_only(error)).strip()
    return text.splitlines()[-1]


def _best(plan: Plan, builder: Builder, experiment: Experiment, failed: dict[str, str]) -> Trial:
    """The finished trial with the best validation value: test queries select nothing."""
    selection = experiment.evaluation.selection

    def value(trial: Trial) -> float:
        best: dict[str, float] = builder.get(trial.experiment.trained()).counts["best"]
        return best[selection]

    return max((t for t in plan.trials if t.name not in failed), key=value)


def _artifacts(trial: Trial, builder: Builder) -> dict[str, str]:
    """One artifact per kind: the trial's own line from collection to metrics."""
    found: dict[str, str] = {}

    def visit(step: Step) -> None:
        for one in {**step.inputs(), **step.needs()}.values():
            visit(one)
        found[step.kind] = builder.get(step).uri

    experiment = trial.experiment
    visit(experiment.metrics(experiment.run_of(experiment.trained())))
    return dict(sorted(found.items()))
