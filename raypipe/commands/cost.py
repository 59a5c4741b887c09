"""What a plan would cost: pairs, time and memory, from a short probe on this machine."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

from raypipe.commands.probe import Cost, group_size, probe, stage_folder
from raypipe.datasets.steps import Queries
from raypipe.groups.joined import JoinedGroups
from raypipe.resources import Context, Resources
from raypipe.stages.stage import Stage
from raypipe.storage.builder import Builder
from raypipe.sweep.plan import Plan
from raypipe.synthesis.known_items import SyntheticQueries

_START_S = 20.0  # of Ray Train's workers, measured on two cores
_CPU_TOKENS = (4_096, 2_048)  # alive in training, and of a batch of scoring


@dataclass(frozen=True)
class StageCost:
    """Pairs of one stage that does not stand; upper bounds."""

    pairs: int
    validation_pairs: int


def estimate(plan: Plan, builder: Builder) -> list[str]:
    """Sentences: pairs to train on and to re-rank, minutes, memory per worker.

    Nothing is run for stages that stand; on GPUs only pairs are counted, since no GPU can be
    measured before the cluster gives one.
    """
    missing = [stage for stage in plan.stages.values() if builder.find(stage) is None]
    if not missing:
        return ["nothing to train: every stage stands"]
    costs: dict[str, StageCost] = {}
    unknown: dict[str, None] = {}
    for stage in missing:
        if (cost := cost_of(stage, builder)) is None:
            unknown[stage.stage_name] = None
        else:
            costs[stage.digest] = cost
    if unknown:
        names = ", ".join(unknown)
        return [f"no estimate: how many groups {names} has is known when they are mined"]
    test_pairs = _test_pairs(plan, builder)
    line = (
        f"to do: {sum(cost.pairs for cost in costs.values()):,} pairs to train on, "
        f"{sum(cost.validation_pairs for cost in costs.values()):,} to validate on, "
        f"{test_pairs:,} to test on, at most"
    )
    return [line, _time_line(plan.trials[0].experiment.resources, missing, costs, test_pairs)]


def _time_line(
    resources: Resources, missing: list[Stage], costs: Mapping[str, StageCost], test_pairs: int
) -> str:
    """Minutes and memory, from probes; or why there is no figure."""
    if resources.gpu or _cluster_has_gpus():
        return "time not measured: no GPU can be, before the cluster gives one"
    threads, slots = _threads(resources, len(missing))
    probes = _probes(missing, threads, resources)
    measured = {kind: cost for kind, cost in probes.items() if cost is not None}
    if len(measured) < len(probes):
        absent = [s.chain()[0].start.name for s in missing if stage_folder(s) is None]
        why = f"{absent[0]} is not on this machine yet" if absent else "the probe failed here"
        return f"time not measured: {why}"
    seconds = test_pairs * max(cost.score_s for cost in measured.values())
    for stage in missing:
        cost, probed = costs[stage.digest], measured[_kind(stage)]
        work = cost.pairs * probed.train_s + cost.validation_pairs * probed.score_s
        seconds += work / resources.workers + _START_S
    memory = max(cost.memory for cost in measured.values())
    return (
        f"a probe of {len(measured)} kind{'s' * (len(measured) > 1)} of stage says: "
        f"{_at_most(seconds / slots)} of training and re-ranking with {slots} "
        f"stage{'s' * (slots > 1)} at a time; {memory / 2**30:.1f} GB per training worker, "
        f"{slots * resources.workers} at a time"
    )


def _at_most(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return "less than a minute" if minutes < 2 else f"at most {minutes:,} minutes"


def cost_of(stage: Stage, builder: Builder) -> StageCost | None:
    """None where the number of groups is not known before they are mined."""
    config = stage.config
    artifact = builder.find(stage.groups)
    if artifact is not None:
        groups, pairs = int(artifact.counts["groups"]), int(artifact.counts["pairs"])
        per_group = pairs / max(groups, 1)
    else:
        queries = _counts(stage.groups.negatives.queries, builder)
        form = getattr(stage.groups.negatives, "groups", None)
        if queries is None or form is None or isinstance(stage.groups, JoinedGroups):
            return None
        form = form.settled(queries["qrels"], queries["queries"])
        per_positive = form.groups_per_query == "each_positive"
        groups = queries["qrels" if per_positive else "queries"]
        per_group = float(group_size(stage))
    steps = config.total_steps(min(groups, config.limit or groups))
    validations = len(config.validation_steps(steps)) + stage.offers_start
    judged = _counts(stage.validation.queries, builder) or {"queries": 0}
    return StageCost(
        pairs=int(steps * config.queries_per_step * per_group),
        validation_pairs=judged["queries"] * stage.depth * validations,
    )


def _counts(step: Queries, builder: Builder) -> Mapping[str, int] | None:
    """Counts of a query set, which is read here if it does not stand; None where it cannot be had,
    or is not written yet."""
    if (artifact := builder.find(step)) is not None:
        return artifact.counts
    return None if isinstance(step, SyntheticQueries) else _selected(step)


@functools.lru_cache(maxsize=32)
def _selected(step: Queries) -> Mapping[str, int] | None:
    try:
        return step.select().counts
    except Exception:  # whatever a download raises: no estimate is no reason to stop
        return None


def _test_pairs(plan: Plan, builder: Builder) -> int:
    """Pairs of the test runs that do not stand."""
    pairs = 0
    for trial in plan.trials:
        for role in trial.experiment.test_sets():
            run = trial.experiment.run_of(plan.last(trial), role)
            queries = _counts(run.lists.queries, builder)
            if queries is not None and builder.find(run) is None:
                pairs += queries["queries"] * run.depth
    return pairs


def _kind(stage: Stage) -> str:
    """What a pair's cost depends on: stages of one kind are probed once."""
    kind = (stage_folder(stage), stage.model.type, stage.model.keep_layers)
    shape = (*kind, stage.truncation.longest)
    memory = (stage.tokens_at_a_time(0), stage.config.gradient_checkpointing)
    return str((*shape, group_size(stage), stage.precision, *memory))


def _probes(stages: list[Stage], threads: int, resources: Resources) -> dict[str, Cost | None]:
    """What a pair of each kind of stage costs here; None where the probe failed."""
    budget, batch = _CPU_TOKENS
    budget = resources.micro_batch_tokens or budget
    costs: dict[str, Cost | None] = {}
    for stage in stages:
        if _kind(stage) not in costs:
            alive = stage.tokens_at_a_time(budget)
            costs[_kind(stage)] = probe(stage, threads, alive, min(batch, budget))
    return costs


def _threads(resources: Resources, stages: int) -> tuple[int, int]:
    """(CPUs of a worker, stages at a time): the cluster's, or this machine's before a cluster."""
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
