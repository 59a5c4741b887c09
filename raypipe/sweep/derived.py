"""Rows that cost no training: what seeds of one recipe say together, and with the first stage."""

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
from raypipe.runs.rerank import CrossEncoderRun
from raypipe.stages.stage import Stage
from raypipe.storage.artifacts import Step
from raypipe.storage.builder import Builder
from raypipe.sweep.table_rows import chain_facts, per_query, stage_facts


@dataclass(frozen=True)
class Derived:
    """One such row."""

    name: str
    trials: tuple[Trial, ...]
    """Whose checkpoints it needs."""
    run: Callable[[Role], Step]
    """On the queries of a test set."""


def derived(trials: Sequence[Trial], wanted: Sequence[Derivation]) -> list[Derived]:
    """The rows of `evaluation.ensembles`, seed sets first.

    Raises:
        ConfigError: seeds are to be combined, but no two trials differ only in their seed.
    """
    sets = {name: members for name, members in by_row(trials).items() if len(members) > 1}
    if not sets and (needs := [one for one in wanted if one != "interpolation"]):
        raise ConfigError(
            f"evaluation.ensembles: {needs[0]} needs trials that differ only in their seed; add "
            "sweep.space.seed: [1, 2, 3]"
        )
    rows = []
    for name, members in sets.items():
        many = tuple(members)
        if "seeds" in wanted:
            rows.append(Derived(f"{len(many)} seeds: {name}", many, _ensemble(many)))
        if "average" in wanted:
            rows.append(Derived(f"mean weights: {name}", many, _average(many)))
        if "seeds" in wanted and "interpolation" in wanted:
            mixed = _mixed(many[0].experiment, _together(many))
            rows.append(Derived(f"{len(many)} seeds + first stage: {name}", many, mixed))
    if "interpolation" in wanted:
        for trial in trials:
            mixed = _mixed(trial.experiment, _alone(trial))
            rows.append(Derived(f"{trial.name} + first stage", (trial,), mixed))
    return rows


Scored = Callable[[Role, int], CrossEncoderRun | SeedEnsembleRun]
"""A run of a role's queries to a depth."""


def _alone(trial: Trial) -> Callable[[Role, int], CrossEncoderRun]:
    one = trial.experiment
    return lambda role, depth: replace(one.run_of(one.trained(), role), depth=depth)


def _together(members: Sequence[Trial]) -> Callable[[Role, int], SeedEnsembleRun]:
    return lambda role, depth: SeedEnsembleRun(tuple(_alone(one)(role, depth) for one in members))


def _ensemble(members: Sequence[Trial]) -> Callable[[Role], Step]:
    return lambda role: _together(members)(role, members[0].experiment.depth(role))


def _average(members: Sequence[Trial]) -> Callable[[Role], Step]:
    weights = AveragedWeights(tuple(one.experiment.trained() for one in members))
    return lambda role: members[0].experiment.run_of(weights, role)


def _mixed(experiment: Experiment, scored: Scored) -> Callable[[Role], Step]:
    """The weight is chosen on validation queries, over the recipe's first stage, to the depth of
    the test set; over another first stage it is taken as it is."""

    def run(role: Role) -> Step:
        depth, measure = experiment.depth(role), experiment.evaluation.selection
        weight = BestInterpolation(scored("validation", depth), measure)
        return InterpolatedRun(scored(role, depth), weight)

    return run


def derived_row(one: Derived, builder: Builder, made: set[str], roles: Sequence[Role]) -> Row:
    """Its row; pairs and seconds are those of all stages that it needs, each counted once, where
    their checkpoints stand."""
    experiment = one.trials[0].experiment
    results = {
        role: [per_query(builder.get(experiment.metrics(one.run(role), role)))] for role in roles
    }
    stages = {s.digest: s for t in one.trials for s in t.experiment.trained().chain()}
    chain = experiment.trained().chain()
    facts, own = chain_facts(list(stages.values()), builder), chain_facts(chain, builder)
    return Row(
        one.name,
        "derived",
        results,
        tuple(trial.experiment.seed for trial in one.trials),
        () if own is None else tuple(map(stage_facts, chain, own)),
        None if facts is None else sum(int(f["pairs"]) for f in facts),
        None if facts is None else sum(float(f["seconds"]) for f in facts),
        not stages.keys() & made,
    )


def needed(rows: Sequence[Derived], builder: Builder, roles: Sequence[Role]) -> frozenset[str]:
    """Digests of the stages that would be trained now to make these rows."""

    def untrained(step: Step) -> Iterator[str]:
        if builder.find(step) is not None:
            return
        if isinstance(step, Stage):
            yield step.digest
            return
        for below in {**step.inputs(), **step.needs()}.values():
            yield from untrained(below)

    return frozenset(
        digest
        for row in rows
        for role in roles
        for digest in untrained(row.trials[0].experiment.metrics(row.run(role), role))
    )
