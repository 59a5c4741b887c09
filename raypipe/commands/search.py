"""A search: only the best trial on validation reads the test queries; nothing is tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raypipe.commands.checks import check_judged, differences
from raypipe.commands.cost import estimate
from raypipe.commands.job import Study, StudyJob, StudyOutcome, run_study
from raypipe.commands.preview import preview
from raypipe.commands.result import Result
from raypipe.evaluation.report.contents import SearchedTrial
from raypipe.progress import Say
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import representatives
from raypipe.storage.builder import Builder
from raypipe.sweep.encoders import trained_experiments
from raypipe.sweep.plan import Plan
from raypipe.sweep.run_trial import Work
from raypipe.sweep.runner import Runner
from raypipe.sweep.search.journal import Draw, Journal
from raypipe.sweep.search.space_sampler import SpaceSampler
from raypipe.sweep.search.state import best_trial
from raypipe.sweep.search.tuning import search


def run_or_plan(experiment: Experiment, dry_run: bool, say: Say = print) -> Result | None:
    """The search, or only its plan.

    Raises:
        ConfigError: before any work, if something the recipe names is not usable.
    """
    study = SettingsSearch(experiment, representatives(experiment))
    check_judged(study.trials)
    for checked in trained_experiments(study.trials):
        checked.check()
    builder = Builder(experiment.store())
    if not dry_run:
        return run_study(study, builder, say)
    for line in preview(study.trials, builder, model=True):
        say(line)
    say("\n".join(study.plan_lines(builder)))
    return None


@dataclass
class SettingsSearch(Study):
    """Trials that show every value of the space; what is trained is drawn while the search runs."""

    def plan_lines(self, builder: Builder) -> list[str]:
        """Draws, keys, and what the trials that show every value would cost."""
        settings = self.experiment.sweep.search
        draws = Journal.of(self.experiment, builder.store).read()
        over = sum(draw.state != "running" for draw in draws)
        pruning = "hopeless ones are stopped" if settings.pruning else "nothing is stopped early"
        keys = ", ".join(axis.key for axis in self.experiment.sweep.axes()) or "nothing"
        return [
            f"search: {settings.trials} trials by {settings.algorithm} ({over} done), {pruning}; "
            f"varies {keys}",
            f"of {len(self.trials)} trials that show every value:",
            *estimate(Plan.joined([*self.encoders, self.plan]), builder),
        ]

    def train(self, job: StudyJob, runner: Runner, roles: tuple[str, ...]) -> StudyOutcome:
        """Search, then judge the best trial."""
        draws = search(self.experiment, runner)
        plan, failed = self._tested(job, draws, runner, roles)
        failed |= {f"{draw.number:03d}": draw.error for draw in draws if draw.state == "failed"}
        states = [draw.state for draw in draws]
        counts = {state: states.count(state) for state in sorted(set(states))}
        numbers = {f"trials_{state}": count for state, count in counts.items()}
        searched = _searched(self.experiment, draws)
        made = job.builder.made
        return StudyOutcome(plan, failed, made, {"trials": counts}, numbers, searched=searched)

    def _tested(
        self, job: StudyJob, draws: Sequence[Draw], runner: Runner, roles: tuple[str, ...]
    ) -> tuple[Plan, dict[str, str]]:
        """The best trial on validation, tested, if one finished; what went wrong."""
        try:
            best = best_trial(self.experiment, draws)
        except RuntimeError as error:
            job.note([str(error)])
            return Plan.of([]), {self.experiment.name: str(error)}
        if keys := differences([self.trials[0], best]):
            job.note(
                [
                    f"the best trial differs in {', '.join(keys)} from {self.trials[0].name!r}, "
                    "whose first stage, teacher and oracle are shown"
                ]
            )
        plan = Plan.of([best])
        work = Work(plan, roles, needed=frozenset({plan.last(best).digest}))
        return plan, runner.run([best], work)


def _searched(experiment: Experiment, draws: Sequence[Draw]) -> tuple[SearchedTrial, ...]:
    """Draws as the report shows them."""
    sampler = SpaceSampler(experiment.sweep.axes(), experiment.sweep.search)
    return tuple(
        SearchedTrial(
            draw.number,
            {key: label for key, label, _ in sampler.choices(draw)},
            draw.state,
            draw.value,
        )
        for draw in draws
    )
