"""A job from mining to report: the course that a comparison and a search share."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from raypipe.commands.checks import available, check_held_out, missing_notes
from raypipe.commands.closing import closing_lines, places_of
from raypipe.commands.existing_rows import look_at_run_rows
from raypipe.commands.lock import LOCK, lock_text
from raypipe.commands.mine import mine_encoders, mine_shared, start_cluster
from raypipe.commands.note import note_of
from raypipe.commands.origin import origin
from raypipe.commands.query_facts import query_facts
from raypipe.commands.query_sets import all_queries, contents
from raypipe.commands.result import Result, line_of, local_page, publish, record_best
from raypipe.commands.teacher_quality import teacher_quality
from raypipe.config import flatten, to_yaml
from raypipe.evaluation.report.contents import Report, SearchedTrial
from raypipe.evaluation.results import Row
from raypipe.evaluation.same_run import one_row_per_run
from raypipe.progress import Say
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import Trial
from raypipe.storage.artifacts import Artifact, Step
from raypipe.storage.builder import Builder
from raypipe.sweep.best import best_of
from raypipe.sweep.derived import DerivedRow
from raypipe.sweep.encoders import encoders_of, still_needed, trained_experiments
from raypipe.sweep.list_heads import first_documents, tracked_documents
from raypipe.sweep.mining_notes import mining_notes
from raypipe.sweep.plan import Plan, training_sets
from raypipe.sweep.report_facts import (
    alarms_of,
    curves_of,
    judged_on,
    links_of,
    references_of,
    set_facts,
    with_slices,
    without_queries,
)
from raypipe.sweep.run_trial import Work
from raypipe.sweep.runner import Runner, tune_over
from raypipe.sweep.table_rows import baseline_rankings, baseline_runs, baselines, trained_rows
from raypipe.sweep.tracked_rows import PHASE_TAG, REFERENCES_TAG, log_plain_row
from raypipe.synthesis.known_items import synthetic_sets
from raypipe.tracking.names import NOTE_TAG
from raypipe.tracking.opening import Opening
from raypipe.tracking.recorder import Kind
from raypipe.tracking.relay import Relay
from raypipe.tracking.section import tracked_tags


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
        """Every stage that may be trained, those of `encoders` aside."""
        return Plan.of(self.trials)

    @cached_property
    def encoders(self) -> list[Plan]:
        """The stages whose models retrieve lists, trained before all else, plan after plan."""
        return encoders_of(self.trials)

    def encoders_needed(self, builder: Builder, roles: Sequence[str]) -> list[Plan]:
        """The encoders without those that nothing has to be made of any more."""
        if not self.encoders:
            return []
        plan = Plan.of(self.trials)
        results: list[Step] = [plan.metrics(t, role) for t in plan.trials for role in roles]
        results += [self.first.first_stage(role) for role in roles]
        plans = [still_needed(plan, results, builder) for plan in self.encoders]
        return [plan for plan in plans if plan.trials]

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
    started = time.monotonic()
    builder.announce = say
    experiment = study.experiment
    opening = Opening(experiment.tracking_uri(), experiment.tracked_experiment, say)
    experiments = trained_experiments(study.trials)
    if any(synthetic_sets(one.query_sets().values()) for one in experiments):
        start_cluster(study.experiment, builder, say)  # queries are written there
    read = contents(builder, make=True)
    notes = check_held_out(experiments, read)
    for line in look_at_run_rows(study.first, read):
        say(line)
    opening.check()
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

    result = tracked(study.experiment, say, work)
    for line in closing_lines(result, time.monotonic() - started):
        say(line)
    return result


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
        builder.plan(self._first_steps(roles))
        runner = Runner(builder, self.relay, self.run_id, study.experiment.sweep.retries)
        of_encoders = self._train_encoders(runner, roles)
        # early, so that a bad teacher is known before it scores all training lists, which costs
        sets = training_sets(study.trials)
        qualities = teacher_quality(first, sets, builder, self.say)
        self.notes += [line for quality in qualities for line in quality.lines()]
        counts = of_encoders | mine_shared(study.plan, roles, builder, self.say) | facts
        self.note(mining_notes(first, ["validation", *roles], sets, builder))
        log_inputs(first, roles, builder, self.relay, self.run_id)
        self.relay.send("log_text", self.run_id, lock_text(self._last_steps(roles)), LOCK)
        rows = baselines(first, builder, roles, self.say)
        tracked_rankings = baseline_rankings(first, builder, roles)
        self.track(rows, "baseline", [tracked_rankings.get(row.name, {}) for row in rows])
        outcome = study.train(self, runner, roles)
        rows += trained_rows(outcome.plan, outcome.failed, builder, outcome.made, roles)
        rows += outcome.further_rows
        finished = outcome.plan.without(outcome.failed)
        for sentence in alarms_of(finished, builder, heard=outcome.made):
            self.say(sentence)
        self.notes += [*alarms_of(finished, builder), *builder.alarms]
        counts |= outcome.counts
        report, standing = self._report(rows, outcome, finished, counts, roles)
        shown = tracked_documents(report.first, first)
        publish(replace(report, first=shown), self.relay, self.run_id)
        page = local_page(report, self.run_id) if shown != report.first else ""
        line: dict[str, str] = {}
        best_row = ""
        if (best := best_of(finished, outcome.derived, builder)) is not None:
            best_row = standing.get(best.row, best.row)
            for sentence in record_best(best, builder, self.relay, self.run_id):
                self.say(sentence)
            line = line_of(best.metrics, builder)
        self.relay.send("tag", self.run_id, {NOTE_TAG: note_of(report, best_row)})
        self.relay.send("log", self.run_id, dict(outcome.numbers))
        return Result("", report, line, counts, outcome.failed, qualities, best_row, page)

    def _train_encoders(self, runner: Runner, roles: Sequence[str]) -> dict[str, Any]:
        """Train the stages whose models retrieve lists; the counts of what they train on.

        Raises:
            RuntimeError: one failed, so that lists are missing.
        """
        counts: dict[str, Any] = {}
        for plan in self.study.encoders_needed(self.builder, roles):
            counts |= mine_encoders(plan, self.builder, self.say)
            failed = runner.run(plan.trials, Work(plan, (), {PHASE_TAG: "encoder"}))
            for name, error in failed.items():
                raise RuntimeError(f"{name} failed, which lists of the recipe are made by: {error}")
        return counts

    def _query_facts(self, roles: Sequence[str]) -> dict[str, Any]:
        """Counts for the summary, by the field that names the queries; says what is worth it."""
        named_sets = all_queries(trained_experiments(self.study.trials), roles)
        facts = query_facts(named_sets, self.builder, contents(self.builder, make=True))
        for fact in facts.values():
            self.note(fact.notes)
        return {f"facts of {name}": dict(fact.counts) for name, fact in facts.items()}

    def _first_steps(self, roles: Sequence[str]) -> Iterator[Step]:
        """What is made before the trials, and the rows without training."""
        yield from self.study.plan.shared()
        for _, _, run in baseline_runs(self.study.first):
            runs = {role: run(role) for role in roles}
            yield from (self.study.first.metrics(r, role) for role, r in runs.items() if r)

    def _last_steps(self, roles: Sequence[str]) -> dict[str, Step]:
        """The metrics of every trial, whose inputs are all that the job makes of it."""
        plan = self.study.plan
        return {
            f"{trial.name} on {role}": plan.metrics(trial, role)
            for trial in plan.trials
            for role in roles
        }

    def note(self, sentences: Sequence[str]) -> None:
        """Say the sentences now, and again in the report."""
        for sentence in sentences:
            self.say(sentence)
        self.notes += sentences

    def track(
        self,
        rows: Sequence[Row],
        kind: Kind,
        metrics: Sequence[Mapping[str, Artifact]],
        labels: Sequence[str] = (),
    ) -> None:
        """Give each row that no trial made a tracked run of its own, by its name or its label.

        Args:
            metrics: of each row, by test set, the artifacts that hold its rankings.
        """
        names = labels or [row.name for row in rows]
        for row, label, artifacts in zip(rows, names, metrics, strict=True):
            log_plain_row(self.relay, self.run_id, row, kind, label, artifacts)

    def _report(
        self,
        rows: Sequence[Row],
        outcome: StudyOutcome,
        finished: Plan,
        counts: Mapping[str, Any],
        roles: Sequence[str],
    ) -> tuple[Report, Mapping[str, str]]:
        """The report, and the row that stands for each row that is the same run."""
        experiment = self.study.experiment
        references, notes = references_of(experiment, rows)
        rows, standing = one_row_per_run(rows)
        self.note([*notes, *(f"{row!r} is the run of {twin!r}" for row, twin in standing.items())])
        shown = outcome.plan.trials[0].experiment if outcome.plan.trials else self.study.first
        slices = experiment.evaluation.slices
        sets = with_slices(judged_on(set_facts(shown, counts, roles), rows), rows, slices)
        self.note(without_queries(sets, slices))
        report = Report(
            name=experiment.name,
            rows=tuple(rows),
            sets=sets,
            references=tuple(dict.fromkeys(standing.get(name, name) for name in references)),
            statistics=experiment.evaluation.statistics,
            mode=experiment.sweep.mode,
            notes=tuple(self.notes),
            links=links_of(rows, self.relay),
            curves=curves_of(finished, self.builder),
            searched=outcome.searched,
            origin=origin(),
            first=first_documents(rows, self.study.first, self.builder),
            recipes={experiment.name: to_yaml(experiment)},
        )
        return report, standing


def tracked(experiment: Experiment, say: Say, work: Callable[[Relay, str], Result]) -> Result:
    """Do the work inside a tracked run, whose id in the relay it gets."""
    tags = tracked_tags(experiment.tracking)
    relay = Relay.open(experiment.tracking_uri(), experiment.tracked_experiment, tags)
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
    sent = relay.drain(say)
    result.tracked_run = sent["runs"].get(run_id, "")
    result.places = places_of(sent, result.tracked_run)
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
