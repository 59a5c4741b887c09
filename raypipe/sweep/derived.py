"""Rows that cost no training: seeds of a recipe together, and models mixed with first stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from raypipe.config import ConfigError
from raypipe.evaluation.results import Row
from raypipe.models.averages import AveragedWeights
from raypipe.recipe.evaluation_sets import Derivation
from raypipe.recipe.experiment import Experiment, Role
from raypipe.recipe.trials import Trial, by_row
from raypipe.runs.combined import BestInterpolation, InterpolatedRun, SeedEnsembleRun
from raypipe.runs.metrics import Metrics
from raypipe.runs.rerank import CrossEncoderRun
from raypipe.stages.stage import Stage
from raypipe.storage.artifacts import Step
from raypipe.storage.builder import Builder
from raypipe.sweep.plan import Plan
from raypipe.sweep.table_rows import chain_facts, measured_by, stage_facts

RunOf = Callable[[Role], Step]
"""Makes the run of a role's queries, to the depth of its test set."""
DeepRunOf = Callable[[Role, int], CrossEncoderRun | SeedEnsembleRun]
"""Makes the run of a role's queries to a depth."""


@dataclass(frozen=True)
class DerivedRow:
    """A row made from models that other rows trained."""

    name: str
    plan: Plan
    """The trials whose checkpoints the row combines."""
    run: RunOf

    def metrics(self, role: Role) -> Metrics:
        """The step that measures the row on a test set."""
        return self.plan.trials[0].experiment.metrics(self.run(role), role)

    def measured(self, builder: Builder, made: set[str], roles: Sequence[Role]) -> Row:
        """The row with its values.

        Its pairs and seconds are the sums over all stages that it needs, each counted once; None
        where a checkpoint was deleted.

        Args:
            made: digests of the stages that this job trained.
        """
        stages, chain = self.plan.stages, self.plan.chain(self.plan.trials[0])
        facts, first_facts = (
            chain_facts(list(stages.values()), builder),
            chain_facts(chain, builder),
        )
        return Row(
            name=self.name,
            kind="derived",
            **measured_by({role: [self.metrics(role)] for role in roles}, builder),
            seeds=tuple(trial.experiment.seed for trial in self.plan.trials),
            stages=() if first_facts is None else tuple(map(stage_facts, chain, first_facts)),
            pairs=None if facts is None else sum(int(fact["pairs"]) for fact in facts),
            seconds=None if facts is None else sum(float(fact["seconds"]) for fact in facts),
            reused=not stages.keys() & made,
        )


def derived_rows(plan: Plan, wanted: Sequence[Derivation]) -> list[DerivedRow]:
    """The rows of `evaluation.ensembles`, those that combine seeds first.

    Raises:
        ConfigError: seeds are to be combined, but no two trials differ only in their seed.
    """
    repeated = {row: trials for row, trials in by_row(plan.trials).items() if len(trials) > 1}
    of_seeds = [derivation for derivation in wanted if derivation != "interpolation"]
    if of_seeds and not repeated:
        raise ConfigError(
            f"evaluation.ensembles: {of_seeds[0]} needs trials that differ only in their seed; add "
            "sweep.space.seed: [1, 2, 3]"
        )
    rows = []
    for row, trials in repeated.items():
        seeds = plan.only(trials)
        if "seeds" in wanted:
            rows.append(DerivedRow(f"{len(trials)} seeds: {row}", seeds, _ensemble(seeds)))
        if "average" in wanted:
            rows.append(DerivedRow(f"mean weights: {row}", seeds, _average(seeds)))
        if "seeds" in wanted and "interpolation" in wanted:
            mixed = _mixed(trials[0].experiment, _deep_ensemble(seeds))
            rows.append(DerivedRow(f"{len(trials)} seeds + first stage: {row}", seeds, mixed))
    if "interpolation" in wanted:
        for trial in plan.trials:
            mixed = _mixed(trial.experiment, _deep_run(plan, trial))
            rows.append(DerivedRow(f"{trial.name} + first stage", plan.only([trial]), mixed))
    return rows


def _deep_run(plan: Plan, trial: Trial) -> Callable[[Role, int], CrossEncoderRun]:
    run_of, last = trial.experiment.run_of, plan.last(trial)
    return lambda role, depth: replace(run_of(last, role), depth=depth)


def _deep_ensemble(seeds: Plan) -> Callable[[Role, int], SeedEnsembleRun]:
    runs = [_deep_run(seeds, trial) for trial in seeds.trials]
    return lambda role, depth: SeedEnsembleRun(tuple(run(role, depth) for run in runs))


def _ensemble(seeds: Plan) -> RunOf:
    ensemble, experiment = _deep_ensemble(seeds), seeds.trials[0].experiment
    return lambda role: ensemble(role, experiment.depth(role))


def _average(seeds: Plan) -> RunOf:
    weights = AveragedWeights(tuple(seeds.last(trial) for trial in seeds.trials))
    return lambda role: seeds.trials[0].experiment.run_of(weights, role)


def _mixed(experiment: Experiment, deep_run: DeepRunOf) -> RunOf:
    """Runs whose scores are mixed with the first stage's.

    Validation queries choose the weight, over the recipe's first stage and to the depth of the test
    set; a test set over another first stage uses the same weight.
    """

    def run(role: Role) -> Step:
        depth, measure = experiment.depth(role), experiment.evaluation.selection
        weight = BestInterpolation(deep_run("validation", depth), measure)
        return InterpolatedRun(deep_run(role, depth), weight)

    return run


def needed(rows: Sequence[DerivedRow], builder: Builder, roles: Sequence[Role]) -> frozenset[str]:
    """Digests of the stages that must be trained again before these rows can be made."""

    def untrained(step: Step) -> Iterator[str]:
        if builder.find(step) is not None:
            return
        if isinstance(step, Stage):
            yield step.digest
            return
        for below in {**step.inputs(), **step.needs()}.values():
            yield from untrained(below)

    return frozenset(
        digest for row in rows for role in roles for digest in untrained(row.metrics(role))
    )
