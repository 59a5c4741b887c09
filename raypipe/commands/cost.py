"""What a plan would cost: pairs, time and memory, from a short probe on this machine."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass

from raypipe.commands.probe import Cost, group_size, probe, stage_folder
from raypipe.datasets.steps import Queries
from raypipe.resources import Context, Resources
from raypipe.stages.stage import Stage
from raypipe.storage.builder import Builder
from raypipe.sweep.plan import Plan

_START_S = 20.0  # of Ray Train's workers, measured on two cores
_CPU_TOKENS = (4_096, 2_048)


@dataclass(frozen=True)
class StageCost:
    """Of one stage that does not stand; upper bounds."""

    pairs: int
    validation_pairs: int


def estimate(plan: Plan, builder: Builder) -> list[str]:
    """Sentences: pairs to train on and to re-rank, hours, memory per worker.

    Nothing is run for stages that stand; on GPUs only pairs are counted, since no GPU can be
    measured before the cluster gives one.
    """
    missing = [stage for stage in plan.stages.values() if builder.find(stage) is None]
    if not missing:
        return ["nothing to train: every stage stands"]
    costs = {stage.digest: cost_of(stage, builder) for stage in missing}
    if unknown := [s.stage_name for s in missing if costs[s.digest] is None]:
        names = ", ".join(dict.fromkeys(unknown))
        return [f"no estimate: how many groups {names} has is known when they are mined"]
    known: Mapping[str, StageCost] = {d: c for d, c in costs.items() if c is not None}
    pairs = sum(one.pairs for one in known.values())
    validated = sum(one.validation_pairs for one in known.values())
    tested = _test_pairs(plan, builder)
    said = [
        f"to do: {pairs:,} pairs to train on, {validated:,} to validate on, {tested:,} to test on, "
        "at most"
    ]
    resources = plan.trials[0].experiment.resources
    if resources.gpu or _cluster_has_gpus():
        return [*said, "time not measured: no GPU can be, before the cluster gives one"]
    threads, slots = _threads(resources, len(missing))
    probed = _probed(missing, threads, resources)
    if None in probed.values():
        absent = [s.chain()[0].start.name for s in missing if stage_folder(s) is None]
        why = f"{absent[0]} is not on this machine yet" if absent else "the probe failed here"
        return [*said, f"time not measured: {why}"]
    busy = sum(
        known[s.digest].pairs * cost.train_s / resources.workers
        + known[s.digest].validation_pairs * cost.score_s / resources.workers
        + _START_S
        for s in missing
        if (cost := probed[_kind(s)]) is not None
    )
    score_s = max(cost.score_s for cost in probed.values() if cost is not None)
    memory = max(cost.memory for cost in probed.values() if cost is not None)
    minutes = (busy + tested * score_s) / slots / 60
    return [
        *said,
        f"a probe of {len(probed)} kind{'s' * (len(probed) > 1)} of stage says: at most "
        f"{minutes:,.0f} minutes of training and re-ranking with {slots} "
        f"stage{'s' * (slots > 1)} at a time; {memory / 2**30:.1f} GB per training worker, "
        f"{slots * resources.workers} at a time",
    ]


def cost_of(stage: Stage, builder: Builder) -> StageCost | None:
    """None where the number of groups is not known before they are mined."""
    config = stage.config
    groups = builder.find(stage.groups)
    if groups is not None:
        count, size = int(groups.counts["groups"]), int(groups.counts["pairs"])
        per_group = size / max(count, 1)
    else:
        queries = _counts(stage.groups.negatives.queries, builder)
        chosen = getattr(stage.groups.negatives, "groups", None)
        if queries is None or chosen is None:
            return None
        many = chosen.groups_per_query == "each_positive"
        count, per_group = queries["qrels" if many else "queries"], float(group_size(stage))
    count = min(count, config.limit or count)
    steps = config.total_steps(count)
    judged = _counts(stage.validation.queries, builder) or {"queries": 0}
    validated = judged["queries"] * stage.depth
    return StageCost(
        int(steps * config.queries_per_step * per_group),
        validated * len(config.validation_steps(steps)),
    )


def _counts(step: Queries, builder: Builder) -> Mapping[str, int] | None:
    """Of a query set, which is only read if it does not stand; None where it cannot be had."""
    found = builder.find(step)
    return found.counts if found is not None else _selected(step)


@functools.lru_cache(maxsize=32)
def _selected(step: Queries) -> Mapping[str, int] | None:
    try:
        return step.select().counts
    except Exception:  # whatever a download raises: no estimate is no reason to stop
        return None


def _test_pairs(plan: Plan, builder: Builder) -> int:
    pairs = 0
    for trial in plan.trials:
        one = trial.experiment
        for role in one.test_sets():
            run = one.run_of(one.trained(), role)
            queries = _counts(run.lists.queries, builder)
            if queries is not None and builder.find(run) is None:
                pairs += queries["queries"] * run.depth
    return pairs


def _kind(stage: Stage) -> str:
    shape = (stage_folder(stage), stage.model.keep_layers, stage.truncation.longest)
    return str((*shape, group_size(stage), stage.precision, stage.config.gradient_checkpointing))


def _probed(stages: list[Stage], threads: int, resources: Resources) -> dict[str, Cost | None]:
    budget, batch = _CPU_TOKENS
    budget = resources.micro_batch_tokens or budget
    found: dict[str, Cost | None] = {}
    for stage in stages:
        if _kind(stage) not in found:
            found[_kind(stage)] = probe(stage, threads, budget, min(batch, budget))
    return found


def _threads(resources: Resources, stages: int) -> tuple[int, int]:
    """(CPUs of a worker, stages at a time), on this machine if no cluster is there yet."""
    import ray

    if ray.is_initialized():
        settled = resources.for_trials(stages)
        return int(settled.cpus_per_worker or 1) or 1, min(settled.slots(), stages)
    cpus = os.cpu_count() or 1
    each = resources.cpus_per_worker or max(cpus // (stages * resources.workers), 1)
    return int(each) or 1, max(min(int(cpus / (each * resources.workers)), stages), 1)


def _cluster_has_gpus() -> bool:
    import ray

    return bool(ray.is_initialized() and Context(Resources()).device() == "cuda")
