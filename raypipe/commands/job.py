"""A job from mining to report: the course that a comparison and a search share."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from raypipe.commands.checks import available, check_held_out, missing_notes
from raypipe.commands.mine import mine_shared, start_cluster
from raypipe.commands.query_facts import query_facts
from raypipe.commands.query_sets import all_queries, contents
from raypipe.commands.result import Result, line_of, publish, record_best
from raypipe.commands.teacher_quality import teacher_quality
from raypipe.config import flatten, to_yaml
from raypipe.evaluation.report.contents import Report, SearchedTrial
from raypipe.evaluation.results import Row
from raypipe.evaluation.same_run import one_row_per_run
from raypipe.progress import Say
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import Trial
from raypipe.storage.builder import Builder
from raypipe.sweep.best import best_of
from raypipe.sweep.derived import DerivedRow
from raypipe.sweep.mining_notes import mining_notes
from raypipe.sweep.plan import Plan, training_sets
from raypipe.sweep.report_facts import alarms_of, curves_of, links_of, references_of, set_facts
from raypipe.sweep.runner import Runner, tune_over
from raypipe.sweep.table_rows import baselines, trained_rows
from raypipe.sweep.tracked_rows import REFERENCES_TAG, log_plain_row
from raypipe.tracking.recorder import Kind
from raypipe.tracking.relay import Relay


@dataclass(frozen=True)
class StudyOutcome:
    """What a study's trials came to."""

    plan: Plan
    """The trials that have rows, whether they failed or not."""
    failed: dict[str, str]
    """Trial name to error."""
    made: set[str]
    """Digests of the stages that this job trained."""
    counts: Mapping[str, Any]
    """For the summary, beside the counts of what was mined."""
    numbers: Mapping[str, int]
    """For the tracked run."""
    further_rows: Sequence[Row] = ()
    """Rows of the table that are no trial's."""
    searched: tuple[SearchedTrial, ...] = ()
    """Every draw of a search."""
    derived: Sequence[DerivedRow] = ()
    """What the further rows show; of a row of several seeds each."""


@dataclass
class Study(ABC):
    """The trials of a recipe, checked, before anything of them was run."""

    experiment: Experiment
    trials: Sequence[Trial]
    """At least one."""

    @cached_property
    def plan(self) -> Plan:
        """Every stage that may be trained."""
        return Plan.of(self.trials)

    @property
    def first(self) -> Experiment:
        """The recipe whose test sets, first stage, teacher and oracle the table shows."""
        return self.trials[0].experiment

    def shown_once(self) -> list[str]:
        """What the table shows of the first trial though others differ in it, in a sentence."""
        return []

    @abstractmethod
    def plan_lines(self, builder: Builder) -> list[str]:
        """What would be done, and what it would cost."""

    @abstractmethod
    def train(self, job: StudyJob, runner: Runner, roles: tuple[str, ...]) -> StudyOutcome:
        """Run the trials, and judge those that get rows on these test sets."""


def run_study(study: Study, builder: Builder, say: Say) -> Result:
    """Check the query sets, start the cluster, print the plan, and do the job in a tracked run.

    Raises:
        ConfigError: training, validation and test queries are not disjoint, or what was mined
            cannot carry a stage.
    """
    experiments = [trial.experiment for trial in study.trials]
    notes = check_held_out(experiments, contents(builder, make=True))
    start_cluster(study.experiment, builder, say)
    for line in study.plan_lines(builder):
        say(line)

    def work(relay: Relay, run_id: str) -> Result:
        try:
            job = StudyJob(study, builder, relay, run_id, say)
            job.note(notes)
            return job.run()
        finally:
            tune_over(run_id, builder.store, study.experiment.name)

    return tracked(study.experiment, say, work)


@dataclass
class StudyJob:
    """A study while it runs."""

    study: Study
    builder: Builder
    relay: Relay
    run_id: str
    """The relay's id of the job's tracked run."""
    say: Say
    notes: list[str] = field(default_factory=list)
    """Sentences below the report's tables."""

    def run(self) -> Result:
        """From mining to the published report."""
        study, first, builder = self.study, self.study.first, self.builder
        if builder.context is not None:
            builder.context = replace(builder.context, job=self.run_id)
        roles, missing = available(first, builder)
        self.note([*missing_notes(first, missing), *study.shown_once()])
        facts = self._query_facts(roles)
        # early, so that a bad teacher is known before it scores all training lists, which costs
        sets = training_sets(study.trials)
        qualities = teacher_quality(first, sets, builder, self.say)
        self.notes += [line for quality in qualities for line in quality.lines()]
        counts = mine_shared(study.plan, roles, builder, self.say) | facts
        self.note(mining_notes(first, ["validation", *roles], sets, builder))
        log_inputs(first, roles, builder, self.relay, self.run_id)
        rows = baselines(first, builder, roles, self.say)
        self.track(rows, "baseline")
        runner = Runner(builder, self.relay, self.run_id, study.experiment.sweep.retries)
        outcome = study.train(self, runner, roles)
        rows += trained_rows(outcome.plan, outcome.failed, builder, outcome.made, roles)
        rows += outcome.further_rows
        finished = outcome.plan.without(outcome.failed)
        self.note(alarms_of(finished, builder))
        self.notes += builder.alarms
        counts |= outcome.counts
        report = self._report(rows, outcome, finished, counts, roles)
        publish(report, self.relay, self.run_id)
        line: dict[str, str] = {}
        if (best := best_of(finished, outcome.derived, builder)) is not None:
            for sentence in record_best(best, builder, self.relay, self.run_id):
                self.say(sentence)
            line = line_of(best.metrics, builder)
        self.relay.send("log", self.run_id, dict(outcome.numbers))
        return Result("", report, line, counts, outcome.failed, qualities)

    def _query_facts(self, roles: Sequence[str]) -> dict[str, Any]:
        """Counts for the summary, by the field that names the queries; says what is worth it."""
        named_sets = all_queries([trial.experiment for trial in self.study.trials], roles)
        facts = query_facts(named_sets, self.builder, contents(self.builder, make=True))
        for fact in facts.values():
            self.note(fact.notes)
        return {f"facts of {name}": dict(fact.counts) for name, fact in facts.items()}

    def note(self, sentences: Sequence[str]) -> None:
        """Say the sentences now, and again in the report."""
        for sentence in sentences:
            self.say(sentence)
        self.notes += sentences

    def track(self, rows: Sequence[Row], kind: Kind, labels: Sequence[str] = ()) -> None:
        """Give each row that no trial made a tracked run of its own, by its name or its label."""
        for row, label in zip(rows, labels or [row.name for row in rows], strict=True):
            log_plain_row(self.relay, self.run_id, row, kind, label)

    def _report(
        self,
        rows: Sequence[Row],
        outcome: StudyOutcome,
        finished: Plan,
        counts: Mapping[str, Any],
        roles: Sequence[str],
    ) -> Report:
        experiment = self.study.experiment
        references, notes = references_of(experiment, rows)
        rows, standing = one_row_per_run(rows)
        self.note([*notes, *(f"{row!r} is the run of {twin!r}" for row, twin in standing.items())])
        shown = outcome.plan.trials[0].experiment if outcome.plan.trials else self.study.first
        return Report(
            name=experiment.name,
            rows=tuple(rows),
            sets=set_facts(shown, counts, roles),
            references=tuple(dict.fromkeys(standing.get(name, name) for name in references)),
            statistics=experiment.evaluation.statistics,
            mode=experiment.sweep.mode,
            notes=tuple(self.notes),
            links=links_of(rows, self.relay),
            curves=curves_of(finished, self.builder),
            searched=outcome.searched,
        )


def tracked(experiment: Experiment, say: Say, work: Callable[[Relay, str], Result]) -> Result:
    """Do the work inside a tracked run, whose id in the relay it gets."""
    relay = Relay.open(experiment.tracking_uri(), experiment.name)
    references = json.dumps(experiment.reference)
    tags = {REFERENCES_TAG: references, "raypipe.mode": experiment.sweep.mode}
    run_id = relay.start(experiment.name, "job", None, flatten(experiment), tags)
    try:  # from the start on: a run that nobody ends would be running for ever
        relay.send("watch", run_id)
        relay.send("log_text", run_id, to_yaml(experiment), "recipe.yaml")
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


def log_inputs(
    experiment: Experiment, roles: Sequence[str], builder: Builder, relay: Relay, run: str
) -> None:
    """The query sets as MLflow inputs of the job."""
    sets = {**experiment.query_sets(), **{role: experiment.queries(role) for role in roles}}
    for use, queries in sets.items():
        artifact = builder.get(queries)
        kind = "training" if use.startswith("training") else use if use == "validation" else "test"
        relay.send("log_dataset", run, queries.name, artifact.uri, artifact.digest, kind)
