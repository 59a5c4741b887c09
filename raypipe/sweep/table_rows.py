"""Rows of the table from artifacts: what needs no training, what was trained, what failed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raypipe.config import ConfigError
from raypipe.evaluation.results import Kind, PerQuery, Row, StageFacts
from raypipe.models.backbone import Backbone
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import Trial, by_row, fixed_rows
from raypipe.stages.stage import Stage
from raypipe.storage.artifacts import Artifact, Step
from raypipe.storage.builder import Builder

Say = Callable[[str], None]


def baselines(
    experiment: Experiment, builder: Builder, roles: Sequence[str], say: Say
) -> list[Row]:
    """First stage, teacher, oracle, and zero-shot where the backbone ships a trained scorer.

    A teacher that knows none of some set's queries (a file of training queries) has no row.
    """
    first, *teacher = fixed_rows(experiment)
    rows = [_row(first, "first_stage", experiment.first_stage, experiment, builder, roles)]
    backbone = Backbone(experiment.model.backbone)
    if backbone.has_scorer and experiment.model.keep_layers is None:

        def zero_shot(role: str) -> Step:
            return experiment.run_of(backbone, role)

        name = f"zero-shot: {backbone.name}"
        rows.append(_row(name, "zero_shot", zero_shot, experiment, builder, roles))
    for name in teacher:
        try:
            run = experiment.teacher_run
            rows.append(_row(name, "teacher", run, experiment, builder, roles))
        except ConfigError as error:
            say(f"no row {name!r}: {error}")
    rows.append(_row("oracle", "oracle", experiment.oracle, experiment, builder, roles))
    return rows


def _row(
    name: str,
    kind: Kind,
    run: Callable[[str], Step],
    experiment: Experiment,
    builder: Builder,
    roles: Sequence[str],
) -> Row:
    metrics = {role: builder.get(experiment.metrics(run(role), role)) for role in roles}
    reused = not any(one.digest in builder.made for one in metrics.values())
    return Row(name, kind, {r: [per_query(one)] for r, one in metrics.items()}, reused=reused)


def trained_rows(
    trials: Sequence[Trial],
    failed: Mapping[str, str],
    builder: Builder,
    made: set[str],
    roles: Sequence[str],
) -> list[Row]:
    """One row per set of seeds, from those that finished; one more per trial that did not.

    Args:
        failed: trial name to error.
        made: digests of the stages that this job trained.
    """
    rows = []
    for name, members in by_row(trials).items():
        sound = [trial for trial in members if trial.name not in failed]
        if sound:
            rows.append(trained_row(name, sound, builder, made, roles))
        for trial in members:
            if trial.name in failed:
                seeds = (trial.experiment.seed,)
                rows.append(Row(trial.name, "trained", {}, seeds, error=failed[trial.name]))
    return rows


def trained_row(
    name: str, trials: Sequence[Trial], builder: Builder, made: set[str], roles: Sequence[str]
) -> Row:
    """The row of trials that differ in their seed only.

    Seeds stand in order, however the recipe lists them and whichever ended first: the bootstrap
    draws them by their place. What their training cost is that of the seeds whose checkpoints
    stand.
    """
    trials = sorted(trials, key=lambda trial: trial.experiment.seed)
    results: dict[str, list[PerQuery]] = {role: [] for role in roles}
    stages = [trial.experiment.trained().chain() for trial in trials]
    told = [(chain, chain_facts(chain, builder)) for chain in stages]
    known = [(chain, facts) for chain, facts in told if facts is not None]
    for trial, chain in zip(trials, stages, strict=True):
        one = trial.experiment
        for role in roles:
            metrics = builder.get(one.metrics(one.run_of(chain[-1], role), role))
            results[role].append(per_query(metrics))
    seconds = [sum(float(f["seconds"]) for f in facts) for _, facts in known]
    chain, facts = known[0] if known else ([], [])
    return Row(
        name,
        "trained",
        results,
        tuple(trial.experiment.seed for trial in trials),
        tuple(stage_facts(s, f) for s, f in zip(chain, facts, strict=True)),
        sum(int(f["pairs"]) for f in facts) if known else None,
        sum(seconds) / len(seconds) if known else None,
        not any(stage.digest in made for chain in stages for stage in chain),
    )


def stage_facts(stage: Stage, facts: Mapping[str, Any]) -> StageFacts:
    """What a trained stage was trained with."""
    config = stage.config
    return StageFacts(
        name=stage.stage_name,
        loss=config.loss.type,
        lr=config.lr,
        queries_per_step=config.queries_per_step,
        steps=int(facts["steps"]),
        queries=int(facts["steps"]) * config.queries_per_step,
        pairs=int(facts["pairs"]),
        groups=stage.groups.digest,
    )


def per_query(metrics: Artifact) -> dict[str, dict[str, float]]:
    """measure -> query_id -> value."""
    found: dict[str, dict[str, float]] = {}
    for row in metrics.table().to_pylist():
        found.setdefault(row["measure"], {})[row["query_id"]] = row["value"]
    return found


def trainer_facts(checkpoint: Artifact) -> dict[str, Any]:
    """pairs, tokens, seconds, flops, best step of a trained stage."""
    facts: dict[str, Any] = json.loads((checkpoint.local() / "trainer.json").read_text())
    return {"workers": checkpoint.counts.get("workers", 1), **facts}


def chain_facts(chain: Sequence[Stage], builder: Builder) -> list[dict[str, Any]] | None:
    """Of every stage of a trial; None where a checkpoint was deleted after it was judged."""
    found = [builder.find(stage) for stage in chain]
    standing = [trainer_facts(one) for one in found if one is not None]
    return standing if len(standing) == len(chain) else None


def totals(facts: Sequence[Mapping[str, Any]], price: float | None) -> dict[str, float]:
    """Sums over stages; device seconds, and with a price per device hour their cost."""
    found = {k: float(sum(f[k] for f in facts)) for k in ("pairs", "tokens", "seconds", "flops")}
    found["device_seconds"] = float(sum(f["seconds"] * f["workers"] for f in facts))
    if price is not None:
        found["cost"] = found["device_seconds"] / 3600 * price
    return found
