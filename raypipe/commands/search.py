"""A search from recipe to report: only the best trial on validation reads the test queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from raypipe.commands.checks import (
    available,
    check_held_out,
    check_judged,
    differences,
    missing_notes,
)
from raypipe.commands.cost import estimate
from raypipe.commands.job import (
    line_of,
    log_inputs,
    mine,
    record_best,
    start_cluster,
    teachers,
    tracked,
)
from raypipe.commands.result import Result, publish
from raypipe.evaluation.report.contents import Report, SearchedTrial
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import Trial, by_row, representatives
from raypipe.storage.builder import Builder
from raypipe.sweep.plan import Plan
from raypipe.sweep.report_facts import alarms_of, curves_of, links_of, set_facts
from raypipe.sweep.run_trial import Work
from raypipe.sweep.runner import Runner
from raypipe.sweep.search.drawing import best_trial
from raypipe.sweep.search.journal import Drawn, Journal
from raypipe.sweep.search.sampler import Sampler
from raypipe.sweep.search.tuning import search
from raypipe.sweep.table_rows import baselines, trained_rows
from raypipe.sweep.tracked_rows import log_plain_row
from raypipe.tracking.relay import Relay

Say = Callable[[str], None]


def run_or_plan(experiment: Experiment, dry_run: bool, say: Say = print) -> Result | None:
    """The search, or only its plan.

    Raises:
        ConfigError: before any work, if something the recipe names is not usable.
    """
    shown = representatives(experiment)
    check_judged(shown)
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
        best, lost = self._tested(drawn, runner, roles)
        rows += trained_rows(best, lost, self.builder, self.builder.made, roles)
        sound = [one for one in best if one.name not in lost]
        for one in best:
            self.notes += _shown_once(self.shown[0], one)
        self.notes += [*alarms_of(sound, self.builder), *(lost.values() if not best else [])]
        report = Report(
            name=self.experiment.name,
            rows=tuple(rows),
            sets=set_facts(best[0].experiment if best else first, counts, roles),
            statistics=self.experiment.evaluation.statistics,
            mode="search",
            notes=tuple(self.notes),
            links=links_of(rows, self.relay),
            curves=curves_of(by_row(sound), self.builder),
            searched=searched(self.experiment, drawn),
        )
        publish(report, self.relay, self.run_id)
        for one in sound:
            record_best(one, self.builder, self.relay, self.run_id)
        lost |= {f"{one.number:03d}": one.error for one in drawn if one.state == "failed"}
        states = [one.state for one in drawn]
        counts["trials"] = {state: states.count(state) for state in sorted(set(states))}
        numbers = {f"trials_{state}": n for state, n in counts["trials"].items()}
        self.relay.send("log", self.run_id, numbers)
        line = line_of(sound[0], self.builder) if sound else {}
        return Result("", report, line, counts, lost, qualities)

    def _tested(
        self, drawn: Sequence[Drawn], runner: Runner, roles: Sequence[str]
    ) -> tuple[list[Trial], dict[str, str]]:
        """The best trial on validation, tested, if one finished; what went wrong."""
        try:
            best = best_trial(self.experiment, drawn)
        except RuntimeError as error:
            return [], {self.experiment.name: str(error)}
        checkpoint = best.experiment.trained().digest
        return [best], runner.run([best], Work(tuple(roles), needed=frozenset({checkpoint})))


def _shown_once(first: Trial, best: Trial) -> list[str]:
    """What rows of different trials cannot say of themselves."""
    if not (keys := differences([first, best])):
        return []
    return [
        f"the best trial differs in {', '.join(keys)} from {first.name!r}, whose first stage, "
        "teacher and oracle are shown"
    ]


def searched(experiment: Experiment, drawn: Sequence[Drawn]) -> tuple[SearchedTrial, ...]:
    """Draws as the report shows them."""
    sampler = Sampler(experiment.sweep.axes(), experiment.sweep.search)
    return tuple(
        SearchedTrial(
            one.number,
            {key: label for key, label, _ in sampler.choices(one)},
            one.state,
            one.value,
        )
        for one in drawn
    )
