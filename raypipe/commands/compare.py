"""A comparison: every trial trained and judged, each distinct stage once; significance tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from raypipe.commands.checks import check_judged, differences
from raypipe.commands.cost import estimate
from raypipe.commands.job import Study, StudyJob, StudyOutcome, run_study
from raypipe.commands.preview import preview
from raypipe.commands.result import Result
from raypipe.commands.search import run_or_plan as search_or_plan
from raypipe.evaluation.results import Row
from raypipe.progress import Say
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import expand
from raypipe.storage.artifacts import Step
from raypipe.storage.builder import Builder
from raypipe.sweep.derived import (
    DerivedRow,
    derived_rows,
    joined_seeds,
    needed,
    retrieved_rows,
    weights_of,
)
from raypipe.sweep.encoders import encoders_of
from raypipe.sweep.plan import Plan
from raypipe.sweep.questions import Questions, answer, candidates_of, questions
from raypipe.sweep.run_trial import Work, last_line
from raypipe.sweep.runner import Runner
from raypipe.sweep.table_rows import standing
from raypipe.sweep.tracked_rows import PHASE_TAG


def run_or_plan(experiment: Experiment, dry_run: bool) -> Result | None:
    """The recipe's sweep, in its mode; or only its plan, everything checked and nothing done."""
    if experiment.sweep.mode == "search":
        return search_or_plan(experiment, dry_run)
    if not dry_run:
        return run(experiment)
    comparison, builder = plan_of(experiment)
    for line in preview(comparison.trials, builder, model=True):
        print(line)
    print("\n".join(comparison.plan_lines(builder)))
    return None


def run(experiment: Experiment, say: Say = print) -> Result:
    """Run every trial of the recipe and report; trials that failed are rows with their errors.

    Raises:
        ConfigError: before any work, if something the recipe names is not usable.
    """
    comparison, builder = plan_of(experiment)
    return run_study(comparison, builder, say)


def plan_of(experiment: Experiment) -> tuple[Comparison, Builder]:
    """The trials, checked, and a builder on their store; needs no cluster."""
    trials = expand(experiment)
    check_judged(trials)
    comparison = Comparison(experiment, trials, questions(experiment, trials))
    comparison.derived(comparison.plan.only(trials))  # an error now, not after training
    before = [trial for plan in comparison.encoders for trial in plan.trials]
    for trial in (*comparison.plan.trials, *before):
        trial.experiment.check()
    return comparison, Builder(experiment.store())


@dataclass
class Comparison(Study):
    """The trials of a comparison, and the questions that validation queries answer before."""

    asked: Questions = field(default_factory=dict)

    @cached_property
    def plan(self) -> Plan:
        """Every stage that may be trained, those that only choose values first; those of `encoders`
        aside."""
        return Plan.joined([candidates_of(self.asked), Plan.of(self.trials)])

    @cached_property
    def encoders(self) -> list[Plan]:
        """Those of the trials and of the candidates that choose values."""
        return encoders_of([*self.trials, *candidates_of(self.asked).trials])

    def derived(self, plan: Plan) -> list[DerivedRow]:
        """The rows of these trials that cost no training."""
        return [
            *derived_rows(plan, self.experiment.evaluation.ensembles),
            *retrieved_rows(plan),
        ]

    def shown_once(self) -> list[str]:
        """What the table shows of the first trial though others differ in it, in a sentence."""
        if not (keys := differences(self.trials)):
            return []
        return [
            f"the trials differ in {', '.join(keys)}: titles, first stage, teacher and oracle are "
            f"those of {self.trials[0].name!r}"
        ]

    def work(self, plan: Plan, builder: Builder, roles: Sequence[str]) -> Work:
        """What to do with these trials.

        A checkpoint that was deleted after its trial was measured is trained again if a derived row
        that is not there yet reads it, or if its trial is all that the recipe is about.
        """
        stages = needed(self.derived(plan), builder, roles)
        if len(plan.trials) == 1:
            stages |= {plan.last(plan.trials[0]).digest}
        return Work(plan, tuple(roles), needed=stages)

    def to_run(self, builder: Builder) -> Plan:
        """The plan without trials that are measured."""
        if self.first.evaluation.suites:  # which of their sets can be had is not known yet
            return self.plan
        roles = tuple(self.first.test_sets())
        work = self.work(self.plan.only(self.trials), builder, roles)
        return self.plan.without(trial.name for trial in self.trials if work.done(trial, builder))

    def plan_lines(self, builder: Builder) -> list[str]:
        """Trials, distinct stages, and what they would cost."""
        to_run = self.to_run(builder)
        encoders = self.encoders_needed(builder, tuple(self.first.test_sets()))

        def settled(step: Step) -> bool:
            return builder.find(step) is not None or step.digest not in to_run.stages

        lines = self.plan.only(self.trials).summary(settled)
        for plan in encoders:
            names = ", ".join(trial.name for trial in plan.trials)
            lines.append(f"before, as lists are made of them: {names}")
        if self.asked:
            lines.append(
                f"before: {len(candidates_of(self.asked).trials)} short comparisons on validation "
                f"queries choose {', '.join(self.experiment.sweep.select)}"
            )
        return [*lines, *estimate(Plan.joined([*encoders, to_run]), builder)]

    def train(self, job: StudyJob, runner: Runner, roles: tuple[str, ...]) -> StudyOutcome:
        """Choose values, run every trial, and make the derived rows."""
        candidates = candidates_of(self.asked)
        plan, failed = self._answered(job, candidates, runner)
        work = self.work(plan, job.builder, roles)
        failed |= runner.run(plan.without(failed).trials, work)
        stages = Plan.joined([*self.encoders, candidates, plan])
        made = _made(stages, job)
        derived, rows = self._derived(job, plan, failed, made, roles)
        if not plan.without(failed).trials:
            job.note(["every trial failed: no model was trained to its end, none is registered"])
        counts = {"stages": {"distinct": len(stages.stages), "trained": len(made)}}
        numbers = {"stages_trained": len(made), "trials_failed": len(failed)}
        return StudyOutcome(plan, failed, made, counts, numbers, rows, derived=derived)

    def _answered(
        self, job: StudyJob, candidates: Plan, runner: Runner
    ) -> tuple[Plan, dict[str, str]]:
        """The trials with the values that validation queries choose; errors of those without."""
        if not self.asked:
            return self.plan.only(self.trials), {}
        work = Work(candidates, (), {PHASE_TAG: "select"})
        failed = runner.run(candidates.trials, work)
        answers = answer(self.trials, self.asked, job.builder, failed)
        job.note(answers.sentences)
        plan = Plan.of(answers.trials)
        for step in plan.shared():
            job.builder.get(step)
        return plan, answers.errors

    def _derived(
        self,
        job: StudyJob,
        plan: Plan,
        failed: Mapping[str, str],
        made: set[str],
        roles: Sequence[str],
    ) -> tuple[list[DerivedRow], list[Row]]:
        """The derived rows that can be made, and as the table shows them; a note for each that
        cannot."""
        made_rows: list[tuple[DerivedRow, Row]] = []
        for derived in self.derived(plan):
            if lost := [trial.name for trial in derived.plan.trials if trial.name in failed]:
                job.note([f"no row {derived.label!r}: {lost[0]} failed"])
                continue
            try:
                made_rows.append((derived, derived.measured(job.builder, made, roles)))
            except Exception as error:  # the rest of the table stands
                job.note([f"no row {derived.label!r}: {last_line(error)}"])
        rows = [row for _, row in made_rows]
        found = [
            standing({role: one.run(role) for role in roles}, self.first, job.builder)
            for one, _ in made_rows
        ]
        job.track(rows, "derived", found, [derived.label for derived, _ in made_rows])
        job.note(weights_of(made_rows, job.builder))
        return [derived for derived, _ in made_rows], joined_seeds(rows)


def _made(plan: Plan, job: StudyJob) -> set[str]:
    """Digests of the stages that this job trained, and no other job."""
    artifacts = {digest: job.builder.find(stage) for digest, stage in plan.stages.items()}
    return {
        digest
        for digest, artifact in artifacts.items()
        if artifact is not None and artifact.manifest.get("used", {}).get("job") == job.run_id
    }
