"""A job from recipe to report: mine once, train every distinct stage once, evaluate, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raypipe.commands.checks import (
    available,
    check_held_out,
    check_judged,
    differences,
    missing_notes,
)
from raypipe.commands.cost import estimate
from raypipe.commands.job import (
    best_of,
    line_of,
    log_inputs,
    mine,
    record_best,
    start_cluster,
    teachers,
    tracked,
)
from raypipe.commands.result import Result, publish
from raypipe.evaluation.report.contents import Report
from raypipe.evaluation.results import Row
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import Trial, by_row, expand
from raypipe.storage.artifacts import Step
from raypipe.storage.builder import Builder
from raypipe.sweep.derived import derived, derived_row, needed
from raypipe.sweep.plan import Plan
from raypipe.sweep.questions import Question, answer, candidates_of, questions
from raypipe.sweep.report_facts import alarms_of, curves_of, links_of, reference_of, set_facts
from raypipe.sweep.run_trial import Work, last_line
from raypipe.sweep.runner import Runner
from raypipe.sweep.table_rows import baselines, trained_rows
from raypipe.sweep.tracked_rows import PHASE_TAG, log_plain_row
from raypipe.tracking.relay import Relay

Say = Callable[[str], None]


@dataclass
class Comparison:
    """A comparison before anything of it was run."""

    experiment: Experiment
    trials: list[Trial]
    asked: dict[tuple[str, str], Question] = field(default_factory=dict)

    @property
    def candidates(self) -> list[Trial]:
        """What is trained to choose values, each once."""
        return candidates_of(self.asked)

    def plan(self) -> Plan:
        """The distinct stages, with those that only choose values."""
        return Plan.of([*self.candidates, *self.trials])

    def work(self, trials: Sequence[Trial], builder: Builder, roles: Sequence[str]) -> Work:
        """What to do with these trials. A checkpoint that was deleted after its trial was measured
        is trained again for a row of several trials that is not there yet, or if it is all that the
        recipe is about."""
        rows = derived(trials, self.experiment.evaluation.ensembles)
        stages = needed(rows, builder, roles)
        if len(trials) == 1:
            stages |= {trials[0].experiment.trained().digest}
        return Work(tuple(roles), needed=stages)

    def to_run(self, builder: Builder) -> Plan:
        """The plan without trials that are measured."""
        first = self.trials[0].experiment
        if first.evaluation.suites:  # which of their sets can be had is not known yet
            return self.plan()
        work = self.work(self.trials, builder, tuple(first.test_sets()))
        trials = [trial for trial in self.trials if not work.done(trial, builder)]
        return Plan.of([*self.candidates, *trials])

    def shown_once(self) -> list[str]:
        """What the table shows of one trial though others differ in it, in a sentence."""
        if not (keys := differences(self.trials)):
            return []
        return [
            f"the trials differ in {', '.join(keys)}: titles, first stage, teacher and oracle are "
            f"those of {self.trials[0].name!r}"
        ]


def plan_of(experiment: Experiment) -> tuple[Comparison, Builder]:
    """The trials, checked, and a builder on their store; needs no cluster."""
    trials = expand(experiment)
    check_judged(trials)
    comparison = Comparison(experiment, trials, questions(experiment, trials))
    derived(trials, experiment.evaluation.ensembles)  # an error now, not after training
    for trial in [*comparison.candidates, *trials]:
        trial.experiment.check()
    return comparison, Builder(experiment.store())


def plan_lines(comparison: Comparison, builder: Builder) -> list[str]:
    """What would be done: trials, distinct stages, and what they would cost."""
    to_run = comparison.to_run(builder)
    used = to_run.stages

    def settled(step: Step) -> bool:
        return builder.find(step) is not None or step.digest not in used

    lines = Plan.of(comparison.trials).summary(settled)
    if comparison.asked:
        keys = ", ".join(comparison.experiment.sweep.select)
        lines.append(
            f"before: {len(comparison.candidates)} short comparisons on validation queries choose "
            f"{keys}"
        )
    return [*lines, *estimate(to_run, builder)]


def run(experiment: Experiment, say: Say = print) -> Result:
    """Run every trial of the recipe and report; trials that failed are rows with their errors.

    Raises:
        ConfigError: before any work, if something the recipe names is not usable.
    """
    comparison, builder = plan_of(experiment)
    check_held_out([trial.experiment for trial in comparison.trials], builder)
    start_cluster(experiment, builder, say)
    for line in plan_lines(comparison, builder):
        say(line)
    return tracked(
        experiment, say, lambda relay, run_id: _Job(comparison, builder, relay, run_id, say).run()
    )


def run_or_plan(experiment: Experiment, dry_run: bool) -> Result | None:
    """The recipe's sweep, in its mode; or only its plan, everything checked and nothing done."""
    if experiment.sweep.mode == "search":
        from raypipe.commands.search import run_or_plan as search

        return search(experiment, dry_run)
    if not dry_run:
        return run(experiment)
    comparison, builder = plan_of(experiment)
    print("\n".join(plan_lines(comparison, builder)))
    return None


@dataclass
class _Job:
    """A comparison while it runs."""

    comparison: Comparison
    builder: Builder
    relay: Relay
    run_id: str
    say: Say
    notes: list[str] = field(default_factory=list)

    def run(self) -> Result:
        """From mining to the published report."""
        first = self.comparison.trials[0].experiment
        roles, missing = available(first, self.builder)
        self._note(missing_notes(first, missing))
        self._note(self.comparison.shown_once())
        qualities = teachers(first, self.comparison.trials, self.builder, self.say)
        self.notes += [line for one in qualities for line in one.lines()]
        counts = mine(self.comparison.plan(), roles, self.builder, self.say)
        log_inputs(first, roles, self.builder, self.relay, self.run_id)
        rows = self._baselines(first, roles)
        retries = self.comparison.experiment.sweep.retries
        runner = Runner(self.builder, self.relay, self.run_id, retries)
        absent = self._absent(self.comparison.candidates)
        trials, failed = self._chosen(runner)
        absent |= self._absent(trials) - Plan.of(self.comparison.candidates).stages.keys()
        asked = [trial for trial in trials if trial.name not in failed]
        failed |= runner.run(asked, self.comparison.work(trials, self.builder, roles))
        made = absent - self._absent([*self.comparison.candidates, *trials])
        sound = [trial for trial in trials if trial.name not in failed]
        rows += trained_rows(trials, failed, self.builder, made, roles)
        rows += self._derived(trials, failed, made, roles)
        self._note(alarms_of(sound, self.builder))
        if not sound:
            self._note(["every trial failed: no model was trained to its end, none is registered"])
        stages = Plan.of([*self.comparison.candidates, *trials]).stages
        counts["stages"] = {"distinct": len(stages), "trained": len(made)}
        report = self._report(rows, sound, counts, roles)
        publish(report, self.relay, self.run_id)
        best = best_of(sound, self.builder)
        if best is not None:
            record_best(best, self.builder, self.relay, self.run_id)
        numbers = {"stages_trained": len(made), "trials_failed": len(failed)}
        self.relay.send("log", self.run_id, numbers)
        line = {} if best is None else line_of(best, self.builder)
        return Result("", report, line, counts, failed, qualities)

    def _note(self, notes: Sequence[str]) -> None:
        for one in notes:
            self.say(one)
        self.notes += notes

    def _absent(self, trials: Sequence[Trial]) -> set[str]:
        """Digests of the stages that do not stand now."""
        stages = Plan.of(trials).stages.items()
        return {digest for digest, stage in stages if self.builder.store.find(stage) is None}

    def _baselines(self, first: Experiment, roles: Sequence[str]) -> list[Row]:
        rows = baselines(first, self.builder, roles, self.say)
        for row in rows:
            log_plain_row(self.relay, self.run_id, row, "baseline")
        return rows

    def _chosen(self, runner: Runner) -> tuple[list[Trial], dict[str, str]]:
        """The trials with the values that validation queries choose; errors of those without."""
        comparison = self.comparison
        if not comparison.asked:
            return comparison.trials, {}
        failed = runner.run(comparison.candidates, Work((), {PHASE_TAG: "select"}))
        trials, said, lost = answer(comparison.trials, comparison.asked, self.builder, failed)
        self._note(said)
        for step in Plan.of(trials).shared():
            self.builder.get(step)
        return trials, lost

    def _derived(
        self, trials: Sequence[Trial], failed: Mapping[str, str], made: set[str], roles: Any
    ) -> list[Row]:
        rows = []
        for one in derived(trials, self.comparison.experiment.evaluation.ensembles):
            if lost := [trial.name for trial in one.trials if trial.name in failed]:
                self._note([f"no row {one.name!r}: {lost[0]} failed"])
                continue
            try:
                rows.append(derived_row(one, self.builder, made, roles))
            except Exception as error:  # the rest of the table stands
                self._note([f"no row {one.name!r}: {last_line(error)}"])
                continue
            log_plain_row(self.relay, self.run_id, rows[-1], "derived")
        return rows

    def _report(
        self,
        rows: Sequence[Row],
        sound: Sequence[Trial],
        counts: Mapping[str, Any],
        roles: Sequence[str],
    ) -> Report:
        experiment = self.comparison.experiment
        reference, notes = reference_of(experiment, rows)
        self._note(notes)
        return Report(
            name=experiment.name,
            rows=tuple(rows),
            sets=set_facts(self.comparison.trials[0].experiment, counts, roles),
            reference=reference,
            statistics=experiment.evaluation.statistics,
            notes=tuple(self.notes),
            links=links_of(rows, self.relay),
            curves=curves_of(by_row(sound), self.builder),
        )
