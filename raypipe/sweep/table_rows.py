"""Rows of the table from artifacts: those that need no training, and those of the trials."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from raypipe.config import ConfigError
from raypipe.evaluation.results import Kind, Row, StageFacts
from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.progress import Say
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import ORACLE, by_row, fixed_rows, retrieved_untrained, untrained_rows
from raypipe.runs.depth_curve import depth_curve
from raypipe.runs.metrics import TIED, Metrics
from raypipe.stages.stage import Stage
from raypipe.storage.artifacts import Artifact, Step
from raypipe.storage.builder import Builder
from raypipe.storage.copies import CopyError
from raypipe.sweep.list_heads import first_ids
from raypipe.sweep.plan import Plan
from raypipe.sweep.query_cost import query_cost

# --- rows that need no training -------------------------------------------------------------------


def baselines(
    experiment: Experiment, builder: Builder, roles: Sequence[str], say: Say
) -> list[Row]:
    """First stage, teacher, oracle; zero-shot where the backbone ships a trained scorer; the
    backbone's own vectors where the recipe asks for them.

    A teacher that knows none of some set's queries (a file of training queries) has no row.
    """
    rows = []
    for name, kind, run in baseline_runs(experiment):
        try:
            row = _baseline(name, kind, run, experiment, builder, roles)
        except ConfigError as error:
            if kind != "teacher" or isinstance(error, CopyError):
                raise
            say(f"no row {name!r}: {error}")
            continue
        if row.results:
            rows.append(row)
        else:
            say(f"no row {name!r}: its files are of test sets that could not be had")
    return rows


def baseline_runs(
    experiment: Experiment,
) -> Iterator[tuple[str, Kind, Callable[[str], Step | None]]]:
    """Name and kind of each row that needs no training, and what makes its run of a test set; None
    where the row has none."""
    first, *teacher = fixed_rows(experiment)
    yield first, "first_stage", experiment.first_stage
    backbone, model = Backbone(experiment.backbone), experiment.last_model
    whole = isinstance(model, CrossEncoder) and model.keep_layers is None
    if backbone.has_scorer and whole:
        yield f"zero-shot: {backbone.name}", "zero_shot", partial(experiment.run_of, backbone)
    for name in teacher:
        yield name, "teacher", experiment.teacher_run
    for how, name in untrained_rows(experiment).items():
        yield name, "zero_shot", partial(experiment.untrained_run, how)
    for name in retrieved_untrained(experiment):
        yield name, "zero_shot", partial(experiment.retrieved, None)
    for name, row in experiment.evaluation.rows.items():
        yield name, row.type, partial(experiment.existing_run, name)
    yield ORACLE, "oracle", experiment.oracle


def baseline_rankings(
    experiment: Experiment, builder: Builder, roles: Sequence[str]
) -> dict[str, dict[str, Artifact]]:
    """Row -> test set -> the standing metrics, which hold the ranking, of rows without training."""
    return {
        name: standing({role: run(role) for role in roles}, experiment, builder)
        for name, _, run in baseline_runs(experiment)
    }


def standing(
    runs: Mapping[str, Step | None], experiment: Experiment, builder: Builder
) -> dict[str, Artifact]:
    """Test set -> the metrics of the run, where they stand."""
    steps = {role: experiment.metrics(run, role) for role, run in runs.items() if run is not None}
    found = {role: builder.find(step) for role, step in steps.items()}
    return {role: artifact for role, artifact in found.items() if artifact is not None}


def _baseline(
    name: str,
    kind: Kind,
    run: Callable[[str], Step | None],
    experiment: Experiment,
    builder: Builder,
    roles: Sequence[str],
) -> Row:
    runs = {role: run(role) for role in roles}
    steps = {
        role: [experiment.metrics(step, role)] for role, step in runs.items() if step is not None
    }
    measured = measured_by(steps, builder)
    reused = not any(step.digest in builder.made for (step,) in steps.values())
    # one relevance for all is what the judgements say, and a file's order is that of its ranks
    if kind in ("oracle", "run"):
        measured["tied"] = {}
    return Row(name, kind, reused=reused, **measured)


# --- rows of trials -------------------------------------------------------------------------------


def trained_rows(
    plan: Plan,
    failed: Mapping[str, str],
    builder: Builder,
    made: set[str],
    roles: Sequence[str],
) -> list[Row]:
    """One row for the seeds that finished, and one for every trial that failed.

    Args:
        failed: trial name to error.
        made: digests of the stages that this job trained.
    """
    rows = []
    for name, trials in by_row(plan.trials).items():
        finished = [trial for trial in trials if trial.name not in failed]
        if finished:
            rows.append(trained_row(name, plan.only(finished), builder, made, roles))
        for trial in trials:
            if trial.name in failed:
                seeds = (trial.experiment.seed,)
                rows.append(Row(trial.name, "trained", {}, seeds, error=failed[trial.name]))
    return rows


def trained_row(
    name: str, plan: Plan, builder: Builder, made: set[str], roles: Sequence[str]
) -> Row:
    """The row of trials that differ in their seed only.

    Seeds stand in order, however the recipe lists them and whichever ended first: the bootstrap
    draws them by position. Of the seeds whose checkpoints are there, pairs are those
    of the first one, and seconds the mean.
    """
    trials = sorted(plan.trials, key=lambda trial: trial.experiment.seed)
    facts_of = [(plan.chain(trial), chain_facts(plan.chain(trial), builder)) for trial in trials]
    known = [(chain, facts) for chain, facts in facts_of if facts is not None]
    seconds = [sum(float(fact["seconds"]) for fact in facts) for _, facts in known]
    chain, facts = known[0] if known else ([], [])
    return Row(
        name=name,
        kind="trained",
        **measured_by({r: [plan.metrics(trial, r) for trial in trials] for r in roles}, builder),
        seeds=tuple(trial.experiment.seed for trial in trials),
        stages=tuple(map(stage_facts, chain, facts)),
        pairs=sum(int(fact["pairs"]) for fact in facts) if known else None,
        seconds=sum(seconds) / len(seconds) if known else None,
        reused=not plan.stages.keys() & made,
    )


# --- what artifacts say ---------------------------------------------------------------------------


def stage_facts(stage: Stage, facts: Mapping[str, Any]) -> StageFacts:
    """What a stage was trained with, from its config and its trainer's facts."""
    config = stage.config
    return StageFacts(
        name=stage.stage_name,
        loss=config.minimises,
        lr=config.lr,
        queries_per_step=config.queries_per_step,
        steps=int(facts["steps"]),
        queries=int(facts["steps"]) * config.queries_per_step,
        pairs=int(facts["pairs"]),
        groups=stage.groups.digest,
        texts=int(facts.get("texts", 0)),
    )


def measured_by(steps: Mapping[str, Sequence[Metrics]], builder: Builder) -> dict[str, Any]:
    """The fields of a row that its metrics hold, and the runs behind them: results, digests of the
    runs, tied lists, curves over depths, costs.

    Args:
        steps: test set to the metrics of every seed.
    """
    artifacts = {role: [builder.get(step) for step in seeds] for role, seeds in steps.items()}
    tied = {
        role: sum(artifact.counts.get(TIED, 0) for artifact in seeds)
        for role, seeds in artifacts.items()
    }
    return {
        "results": {role: list(map(per_query, seeds)) for role, seeds in artifacts.items()},
        "runs": {role: [step.run_step.digest for step in seeds] for role, seeds in steps.items()},
        "tied": {role: lists for role, lists in tied.items() if lists},
        "depths": _by_set(steps, lambda seeds: depth_means(seeds, builder)),
        "costs": _by_set(steps, lambda seeds: query_cost(seeds, builder)),
        "first": _by_set(steps, lambda seeds: first_ids(seeds, builder)),
    }


def _by_set(steps: Mapping[str, Sequence[Metrics]], of: Callable[[Any], Any]) -> dict[str, Any]:
    found = {role: of(seeds) for role, seeds in steps.items()}
    return {role: value for role, value in found.items() if value}


def depth_means(seeds: Sequence[Metrics], builder: Builder) -> list[dict[int, float]]:
    """Per seed, candidates re-ranked -> mean; empty where a seed has no curve.

    A curve is made of lists that stand, without a word; nothing is scored for it.
    """
    curves = []
    for step in seeds:
        curve = depth_curve(step)
        if curve is None:
            return []
        artifact = builder.find(curve)
        if artifact is None:
            if any(builder.find(part) is None for part in curve.inputs().values()):
                return []
            artifact = replace(builder, announce=lambda line: None).get(curve)
        by_depth: dict[int, list[float]] = {}
        for value in artifact.table().select(["depth", "value"]).to_pylist():
            by_depth.setdefault(value["depth"], []).append(value["value"])
        curves.append({depth: math.fsum(v) / len(v) for depth, v in by_depth.items()})
    return curves


def per_query(metrics: Artifact) -> dict[str, dict[str, float]]:
    """measure -> query_id -> value."""
    by_measure: dict[str, dict[str, float]] = {}
    for row in metrics.table().to_pylist():
        by_measure.setdefault(row["measure"], {})[row["query_id"]] = row["value"]
    return by_measure


def trainer_facts(checkpoint: Artifact) -> dict[str, Any]:
    """pairs, tokens, seconds, flops, best step of a trained stage."""
    facts: dict[str, Any] = json.loads((checkpoint.local() / "trainer.json").read_text())
    return {"workers": checkpoint.counts.get("workers", 1), **facts}


def chain_facts(chain: Sequence[Stage], builder: Builder) -> list[dict[str, Any]] | None:
    """The trainer's facts of every stage; None where a checkpoint was deleted after its trial was
    measured."""
    checkpoints = [builder.find(stage) for stage in chain]
    facts = [trainer_facts(checkpoint) for checkpoint in checkpoints if checkpoint is not None]
    return facts if len(facts) == len(chain) else None


def totals(facts: Sequence[Mapping[str, Any]], price: float | None) -> dict[str, float]:
    """Sums over stages; device seconds, and with a price per device hour their cost."""
    names = ("pairs", "tokens", "seconds", "flops")
    sums = {name: float(sum(fact[name] for fact in facts)) for name in names}
    for name in ("texts", "masked"):  # of bi-encoders, of losses over the step
        if total := sum(fact.get(name, 0) for fact in facts):
            sums[name] = float(total)
    sums["device_seconds"] = float(sum(fact["seconds"] * fact["workers"] for fact in facts))
    if price is not None:
        sums["cost"] = sums["device_seconds"] / 3600 * price
    return sums
