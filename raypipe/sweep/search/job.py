"""A search from recipe to report: only the best trial on validation reads the test queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from raypipe.artifacts import Builder
from raypipe.evaluation.report import Report, Searched
from raypipe.experiment import Experiment
from raypipe.sweep.estimate import estimate
from raypipe.sweep.held_out import check_held_out
from raypipe.sweep.plan import Plan
from raypipe.sweep.publish import Result, alarms_of, curves_of, links_of, publish, set_facts
from raypipe.sweep.relay import Relay
from raypipe.sweep.rows import baselines, trained_row
from raypipe.sweep.runner import Runner
from raypipe.sweep.search.drawing import best_trial
from raypipe.sweep.search.journal import Drawn, Journal
from raypipe.sweep.search.sampler import Sampler
from raypipe.sweep.search.tuning import search
from raypipe.sweep.space import Trial, representatives
from raypipe.sweep.steps import (
    line_of,
    log_inputs,
    mine,
    record_best,
    start_cluster,
    teachers,
    tracked,
)
from raypipe.sweep.suites import available, missing_notes
from raypipe.sweep.tracked import log_plain_row
from raypipe.sweep.trial import Work

Say = Callable[[str], None]


def run_or_plan(experiment: Experiment, dry_run: bool, say: Say = print) -> Result | None:
    """The search, or only its plan.

    Raises:
        ConfigError: before any work, if something the recipe names is not usable.
        RuntimeError: no trial finished.
    """
    shown = representatives(experiment)
    for trial in shown:
        trial.experiment.check()
    builder = Builder(experiment.store())
    if dry_run:
        say("\n".join(plan_lines(experiment, shown, builder)))
        return None
    check_held_out([trial.experiment for trial in shown], builder)
    start_cluster(experiment, builder, say)
    for line in plan_lines(experiment, shown, builder):
        say(line)

    def work(relay: Relay, run_id: str) -> Result:
        return _Job(experiment, shown, builder, relay, run_id, say).run()

    return tracked(experiment, say, work)


def plan_lines(experiment: Experiment, shown: Sequence[Trial], builder: Builder) -> list[str]:
    """What would be done."""
    chosen = experiment.sweep.search
    done = Journal.of(experiment, builder.store).read()
    over = sum(one.state != "running" for one in done)
    pruning = "nothing is stopped early" if chosen.pruning is None else "hopeless ones are stopped"
    keys = ", ".join(axis.key for axis in experiment.sweep.axes()) or "nothing"
    return [
        f"search: {chosen.trials} trials by {chosen.algorithm} ({over} done), {pruning}; "
        f"varies {keys}",
        f"of {len(shown)} trials that show every value:",
        *estimate(Plan.of(shown), builder),
    ]


@dataclass
class _Job:
    """A search while it runs."""

    experiment: Experiment
    shown: Sequence[Trial]
    builder: Builder
    relay: Relay
    run_id: str
    say: Say
    notes: list[str] = field(default_factory=list)

    def run(self) -> Result:
        """From mining to the published report."""
        first = self.shown[0].experiment
        roles, missing = available(first, self.builder)
        self.notes += missing_notes(first, missing)
        qualities = teachers(first, self.shown, self.builder, self.say)
        self.notes += [line for one in qualities for line in one.lines()]
        counts = mine(Plan.of(self.shown), roles, self.builder, self.say)
        log_inputs(first, roles, self.builder, self.relay, self.run_id)
        rows = baselines(first, self.builder, roles, self.say)
        for row in rows:
            log_plain_row(self.relay, self.run_id, row, "baseline")
        retries = self.experiment.sweep.retries
        runner = Runner(self.builder, self.relay, self.run_id, retries)
        drawn = search(self.experiment, runner)
        best = best_trial(self.experiment, drawn)
        if failed := runner.run([best], Work(roles)):
            raise RuntimeError(f"the best trial could not be tested: {failed[best.name]}")
        rows.append(trained_row(best.row, [best], self.builder, self.builder.made, roles))
        report = Report(
            name=self.experiment.name,
            rows=tuple(rows),
            sets=set_facts(best.experiment, counts, roles),
            statistics=self.experiment.evaluation.statistics,
            mode="search",
            notes=(*self.notes, *alarms_of([best], self.builder)),
            links=links_of(rows, self.relay),
            curves=curves_of({best.row: [best]}, self.builder),
            searched=searched(self.experiment, drawn),
        )
        publish(report, self.relay, self.run_id)
        record_best(best, self.builder, self.relay, self.run_id, new=True)
        lost = {f"{one.number:03d}": one.error for one in drawn if one.state == "failed"}
        states = [one.state for one in drawn]
        counts["trials"] = {state: states.count(state) for state in sorted(set(states))}
        numbers = {f"trials_{state}": n for state, n in counts["trials"].items()}
        self.relay.send("log", self.run_id, numbers)
        return Result("", report, line_of(best, self.builder), counts, lost, qualities)


def searched(experiment: Experiment, drawn: Sequence[Drawn]) -> tuple[Searched, ...]:
    """Draws as the report shows them."""
    sampler = Sampler(experiment.sweep.axes(), experiment.sweep.search)
    return tuple(
        Searched(
            one.number,
            {key: label for key, label, _ in sampler.choices(one)},
            one.state,
            one.value,
        )
        for one in drawn
    )
