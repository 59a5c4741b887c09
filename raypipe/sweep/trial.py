"""One trial: its stages, its test run, its metrics, tracked as it goes."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from raypipe.artifacts import Artifact, Builder
from raypipe.config import flatten
from raypipe.resources import Context
from raypipe.sweep.relay import Relay, StageReports, series
from raypipe.sweep.space import Trial
from raypipe.train.stage import Stage, history


def run_trial(trial: Trial, builder: Builder, relay: Relay, parent: str) -> Artifact:
    """Train what is missing, re-rank the test queries, measure; returns the metrics artifact."""
    experiment = trial.experiment
    last = experiment.trained()
    params = {**flatten(experiment), **{f"sweep.{k}": v for k, v in trial.values.items()}}
    run_id = relay.start(trial.name, "trial", parent, params, {"stages": len(last.chain())})
    try:
        for stage in last.chain():
            _stage(stage, builder, relay, run_id)
        run = experiment.run_of(last)
        builder.get(run)
        metrics = builder.get(experiment.metrics(run))
    except BaseException:
        relay.send("finish", run_id, "FAILED")
        raise
    facts = [trainer_facts(builder.get(stage)) for stage in last.chain()]
    totals = {k: sum(f[k] for f in facts) for k in ("pairs", "tokens", "seconds", "flops")}
    totals["device_seconds"] = sum(f["seconds"] * f["workers"] for f in facts)
    if (price := experiment.resources.price_per_device_hour) is not None:
        totals["cost"] = totals["device_seconds"] / 3600 * price
    relay.send("log", run_id, {**metrics.counts["means"], **totals})
    folder = metrics.local()
    relay.send("log_artifact", run_id, str(folder / "per_query.parquet"))
    relay.send("log_artifact", run_id, str(folder / "run.trec"))
    relay.send("finish", run_id)
    return metrics


def trainer_facts(checkpoint: Artifact) -> dict[str, Any]:
    """pairs, tokens, seconds, flops, best step of a trained stage."""
    facts: dict[str, Any] = json.loads((checkpoint.local() / "trainer.json").read_text())
    return {"workers": checkpoint.counts.get("workers", 1), **facts}


def _stage(stage: Stage, builder: Builder, relay: Relay, parent: str) -> None:
    tags = {"digest": stage.digest, "groups_digest": stage.groups.digest}
    run_id = relay.start(stage.stage_name, "stage", parent, flatten(stage.config), tags)
    reused = builder.find(stage) is not None
    context = builder.context
    assert isinstance(context, Context)
    builder.context = dataclasses.replace(
        context, on_report=StageReports(relay, {stage.digest: run_id})
    )
    try:
        checkpoint = builder.get(stage)
    except BaseException:
        relay.send("finish", run_id, "FAILED")
        raise
    finally:
        builder.context = context
    if reused:  # nobody reported: the curves come from the checkpoint
        relay.send("log_series", run_id, series(history(checkpoint)))
    facts = trainer_facts(checkpoint)
    numbers = {k: float(v) for k, v in facts.items() if isinstance(v, int | float)}
    relay.send("log", run_id, {**numbers, "reused": float(reused)})
    relay.send("finish", run_id)
