"""Rows that cost no training: seeds of a recipe together, and models mixed with first stages.

A model that is mixed is a model of its own: it can be the best one, and be handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from raypipe.config import ConfigError
from raypipe.evaluation.joined_rows import joined_curves, mean_costs
from raypipe.evaluation.results import MAIN, Row
from raypipe.models.averages import AveragedWeights
from raypipe.models.trained_bi_encoder import TrainedBiEncoder
from raypipe.recipe.evaluation_sets import Derivation
from raypipe.recipe.experiment import Experiment, Role
from raypipe.recipe.trials import Trial, by_row, retrieved_row
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
class Mix:
    """A model whose scores are mixed with the first stage's, or with its fusion's."""

    experiment: Experiment
    deep_run: DeepRunOf
    is_fused: bool
    """Mixed with the mean of the first stage and the backbone's cosine, before any training."""

    def run(self, role: Role) -> InterpolatedRun:
        """The run of a role's queries, to the depth of its test set."""
        depth = self.experiment.depth(role)
        run = self.deep_run(role, depth)
        return InterpolatedRun(run, self.weight(role), self._fusion(role, depth))

    def weight(self, role: Role = MAIN) -> BestInterpolation:
        """The step that chooses the weight: on validation queries, over the recipe's first stage,
        to the depth of the test set; one over another first stage uses the same weight."""
        depth, measure = self.experiment.depth(role), self.experiment.compared_by
        run, fusion = self.deep_run("validation", depth), self._fusion("validation", depth)
        return BestInterpolation(run, measure, fusion=fusion)

    def _fusion(self, role: Role, depth: int) -> Step | None:
        return self.experiment.untrained_scores("fusion", role, depth) if self.is_fused else None


@dataclass(frozen=True)
class DerivedRow:
    """A row made from models that other rows trained, or one seed of such a row."""

    name: str
    """Of the row, which its seeds share."""
    plan: Plan
    """The trials whose checkpoints the row combines."""
    run: RunOf
    mix: Mix | None = None
    """What makes the run, if that is a mix of scores."""

    @property
    def label(self) -> str:
        """The row's name; of one of several seeds with the trial's name behind it."""
        first, *others = self.plan.trials
        return self.name if others or first.name == first.row else f"{self.name} ({first.name})"

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
            for others, mix in _mixes(trials[0].experiment, _deep_ensemble(seeds)):
                name = f"{len(trials)} seeds + {others}: {row}"
                rows.append(DerivedRow(name, seeds, mix.run, mix))
    if "interpolation" in wanted:
        for trial in plan.trials:
            for others, mix in _mixes(trial.experiment, _deep_run(plan, trial)):
                alone = plan.only([trial])
                rows.append(DerivedRow(f"{trial.row} + {others}", alone, mix.run, mix))
    return rows


def retrieved_rows(plan: Plan) -> list[DerivedRow]:
    """The trials' bi-encoders over the whole corpus, where `evaluation.retrieval` asks for them; a
    trial that ends in a cross-encoder has none."""
    return [
        DerivedRow(retrieved_row(trial.row), plan.only([trial]), _retrieved(plan, trial))
        for trial in plan.trials
        if trial.experiment.evaluation.retrieval is not None
        and isinstance(trial.experiment.last_model, TrainedBiEncoder)
    ]


def _retrieved(plan: Plan, trial: Trial) -> RunOf:
    retrieved, last = trial.experiment.retrieved, plan.last(trial)
    return lambda role: retrieved(last, role)


def _mixes(experiment: Experiment, deep_run: DeepRunOf) -> Iterator[tuple[str, Mix]]:
    """The mixes of a model, by what it is mixed with."""
    yield "first stage", Mix(experiment, deep_run, False)
    if "fusion" in experiment.evaluation.untrained:
        yield "first stage + cosine", Mix(experiment, deep_run, True)


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


def weights_of(rows: Iterable[tuple[DerivedRow, Row]], builder: Builder) -> list[str]:
    """A sentence per row of mixes: the weights that validation queries chose."""
    by_name: dict[str, list[str]] = {}
    for derived, row in rows:
        tried = None if derived.mix is None else builder.find(derived.mix.weight())
        if tried is not None:
            by_name.setdefault(row.name, []).append(f"{tried.counts['weight']:g}")
    return [
        f"{name}: the model weighs {', '.join(weights)}, chosen on validation queries"
        for name, weights in by_name.items()
    ]


def joined_seeds(rows: Iterable[Row]) -> list[Row]:
    """The rows, those of one name as the seeds of one row, in the seeds' order."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    return [_joined(sorted(same, key=lambda row: row.seeds)) for same in by_name.values()]


def _joined(rows: Sequence[Row]) -> Row:
    """One row of several seeds, as `trained_row` has them."""
    seconds = [row.seconds for row in rows if row.seconds is not None]
    roles = rows[0].results
    runs = {role: [digest for row in rows for digest in row.runs.get(role, ())] for role in roles}
    tied = {role: sum(row.tied.get(role, 0) for row in rows) for role in roles}
    return replace(
        rows[0],
        results={role: [values for row in rows for values in row.results[role]] for role in roles},
        seeds=tuple(seed for row in rows for seed in row.seeds),
        seconds=sum(seconds) / len(seconds) if seconds else None,
        reused=all(row.reused for row in rows),
        runs={role: digests for role, digests in runs.items() if digests},
        tied={role: lists for role, lists in tied.items() if lists},
        depths=joined_curves(rows),
        costs=mean_costs(rows),
    )


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
