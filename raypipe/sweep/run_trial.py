"""One trial: its stages, its test runs, its metrics, tracked as it goes."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raypipe.config import flatten
from raypipe.evaluation.results import MAIN
from raypipe.names import printable
from raypipe.recipe.trials import Trial
from raypipe.resources import Context
from raypipe.runs.metrics import Metrics
from raypipe.stages.stage import Stage, history
from raypipe.storage.artifacts import Artifact, Step
from raypipe.storage.builder import Builder
from raypipe.storage.masking import without_secrets
from raypipe.sweep.plan import Plan
from raypipe.sweep.table_rows import chain_facts, totals, trained_row, trainer_facts
from raypipe.sweep.tracked_rows import ERROR_TAG, log_row
from raypipe.tracking.names import NAME_TAG, ROW_TAG, SEED_TAG
from raypipe.tracking.relay import Relay, StageReports, series

OnReport = Callable[[dict[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Work:
    """What to do with the trials of a plan."""

    plan: Plan
    roles: tuple[str, ...] = (MAIN,)
    """Test sets that a trial's model is judged on; empty: the trial is trained only."""
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of the trials' tracked runs."""
    needed: frozenset[str] = frozenset()
    """Digests of last stages whose checkpoints are read after the trials: a deleted one is trained
    again though its trial is measured."""

    def metrics(self, trial: Trial) -> dict[str, Metrics]:
        """The metrics step of every test set."""
        return {role: self.plan.metrics(trial, role) for role in self.roles}

    def done(self, trial: Trial, builder: Builder) -> bool:
        """Whether everything that `run_trial` makes stands.

        A measured trial whose checkpoint was deleted is done, unless the checkpoint is needed.
        """
        last = self.plan.last(trial)
        steps: list[Step] = list(self.metrics(trial).values())
        if not steps or last.digest in self.needed:
            steps.append(last)
        return all(builder.find(step) is not None for step in steps)


def missing(chain: Sequence[Stage], builder: Builder) -> list[Stage]:
    """The stages that are trained to have the last one: those behind the last that stands."""
    for count in range(len(chain), 0, -1):
        if builder.find(chain[count - 1]) is not None:
            return list(chain[count:])
    return list(chain)


def run_trial(
    trial: Trial,
    builder: Builder,
    relay: Relay,
    parent: str,
    work: Work,
    on_report: OnReport | None = None,
) -> dict[str, float]:
    """Train what is missing, re-rank the test queries, measure.

    A deleted stage that nothing needs any more is not trained again.

    Args:
        parent: the relay's id of the job's tracked run.
        on_report: called with what the last stage reports while it is trained.

    Returns:
        Means by measure, those of further test sets as SET/MEASURE; of a trial that is trained
        only, the best validation.
    """
    experiment, chain = trial.experiment, work.plan.chain(trial)
    params = {**flatten(experiment), **{f"sweep.{k}": v for k, v in trial.values.items()}}
    tags = {ROW_TAG: trial.row, SEED_TAG: experiment.seed, "stages": len(chain)}
    run = relay.start(trial.name, "trial", parent, params, {**tags, **work.tags})
    try:
        return _run_chain(trial, chain, builder, relay, run, work, on_report)
    except SystemExit:  # Tune's, of a pruned trial
        relay.send("finish", run, "KILLED")
        raise
    except BaseException as error:
        relay.send("tag", run, {ERROR_TAG: last_line(error)})
        relay.send("finish", run, "FAILED")
        raise
    finally:
        relay.stored()  # what a killed writer has not answered is repeated by this process alone


def _run_chain(
    trial: Trial,
    chain: Sequence[Stage],
    builder: Builder,
    relay: Relay,
    run: str,
    work: Work,
    on_report: OnReport | None,
) -> dict[str, float]:
    """The trial's work, tracked as `run`; its means."""
    made: set[str] = set()
    to_train = [] if work.done(trial, builder) else missing(chain, builder)
    for stage in chain:
        if stage not in to_train and builder.find(stage) is None:
            continue
        listener = on_report if stage is chain[-1] else None
        if _run_stage(stage, trial.name, builder, relay, run, listener):
            made.add(stage.digest)
    metrics = {role: builder.get(step) for role, step in work.metrics(trial).items()}
    facts, checkpoint = chain_facts(chain, builder), builder.find(chain[-1])
    counts = {} if checkpoint is None else checkpoint.counts["best"]
    best = {measure: float(value) for measure, value in counts.items()}
    means = means_of(metrics)
    validation = {f"validation/{measure}": value for measure, value in best.items()}
    price = trial.experiment.resources.price_per_device_hour
    spent = {} if facts is None else totals(facts, price)
    relay.send("log", run, {**means, **validation, **spent})
    if metrics:
        row = trained_row(trial.row, work.plan.only([trial]), builder, made, work.roles)
        log_row(relay, run, row, metrics)
    relay.send("finish", run)
    return means or best


def last_line(error: BaseException) -> str:
    """The last line of an error's text, which for errors from workers says what went wrong."""
    text = "".join(traceback.format_exception_only(error)).strip()
    return printable(without_secrets(text.splitlines()[-1]))


def means_of(metrics: Mapping[str, Artifact]) -> dict[str, float]:
    """Means by measure; those of further test sets as SET/MEASURE."""
    return {
        (name if role == MAIN else f"{role}/{name}"): float(value)
        for role, artifact in metrics.items()
        for name, value in artifact.counts["means"].items()
    }


def _run_stage(
    stage: Stage,
    trial: str,
    builder: Builder,
    relay: Relay,
    parent: str,
    on_report: OnReport | None,
) -> bool:
    """Train the stage if it does not stand, and track it; whether it was trained now."""
    tags = {"digest": stage.digest, "groups_digest": stage.groups.digest, SEED_TAG: stage.seed}
    tags[NAME_TAG] = stage.stage_name
    title = f"{trial}: stage {stage.stage_name}"
    run = relay.start(title, "stage", parent, flatten(stage.config), tags)
    context = builder.context
    assert isinstance(context, Context)
    track = StageReports(relay, {stage.digest: run})

    def report(digest: str, metrics: dict[str, Any]) -> None:
        track(digest, metrics)
        if on_report is not None and digest == stage.digest:
            on_report(metrics)

    builder.context = dataclasses.replace(context, on_report=report, trial=trial)
    try:
        checkpoint = builder.get(stage)
    except BaseException as error:
        relay.send("finish", run, "KILLED" if isinstance(error, SystemExit) else "FAILED")
        raise
    finally:
        builder.context = context
    reused = stage.digest not in builder.made
    if reused:  # no worker of this job reported: the curves come from the checkpoint
        relay.send("log_series", run, series(history(checkpoint)))
    facts = trainer_facts(checkpoint)
    relay.send("log", run, {**_numbers(facts), "reused": float(reused)})
    if alarms := [str(alarm) for alarm in facts.get("alarms", [])]:
        relay.send("log_text", run, "\n".join(alarms) + "\n", "alarms.txt")
    relay.send("finish", run)
    return not reused


def _numbers(facts: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers at any depth, by slash-separated names."""
    numbers: dict[str, float] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            numbers |= _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            numbers[f"{prefix}{name}"] = float(value)
    return numbers
