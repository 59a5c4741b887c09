"""The model that a job hands out: a trial's own, or one mixed with its first stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from raypipe.evaluation.results import MAIN
from raypipe.models.backbone import Backbone
from raypipe.recipe.trials import Trial
from raypipe.runs.metrics import Metrics
from raypipe.storage.artifacts import Artifact
from raypipe.storage.builder import Builder
from raypipe.sweep.derived import DerivedRow, Mix, derived_rows
from raypipe.sweep.plan import Plan


@dataclass(frozen=True)
class Best:
    """A trained model, with the first stage that its scores are mixed with, if they are."""

    trial: Trial
    plan: Plan
    """Has the trial."""
    mixed: DerivedRow | None = None
    """The row of the mix."""

    @property
    def name(self) -> str:
        """Of the trial, or of the mix."""
        return self.trial.name if self.mixed is None else self.mixed.label

    @property
    def row(self) -> str:
        """The row of the table that it is, or that its seed is one of."""
        return self.trial.row if self.mixed is None else self.mixed.name

    @property
    def metrics(self) -> Metrics:
        """The step that measures it on the test queries."""
        return self.plan.metrics(self.trial) if self.mixed is None else self.mixed.metrics(MAIN)

    @property
    def mix(self) -> Mix | None:
        return None if self.mixed is None else self.mixed.mix

    def digest(self) -> str:
        """Of what decides its scores: two models with one digest are the same."""
        return self.plan.last(self.trial).digest if self.mix is None else self.mix.weight().digest

    def interpolation(self, builder: Builder) -> dict[str, Any] | None:
        """What the model needs beside its weights, as its config.json has it; None if nothing.

        score = weight * z(model) + (1 - weight) * z(sum of share * z(column)), over the documents
        of one query; `columns` has the shares.
        """
        if self.mix is None:
            return None
        experiment = self.trial.experiment
        first = {"first_stage": experiment.source(MAIN).label, "depth": experiment.depth()}
        weight = {"weight": float(builder.get(self.mix.weight()).counts["weight"])}
        if not self.mix.is_fused:
            return {**weight, "scaling": "z", "columns": {"first_stage_score": 1.0}, **first}
        columns = {"first_stage_score": 0.5, "cosine": 0.5}
        encoder = Backbone(experiment.backbone).name
        return {**weight, "scaling": "z", "columns": columns, **first, "encoder": encoder}


def best_of(plan: Plan, rows: Sequence[DerivedRow], builder: Builder) -> Best | None:
    """The model with the best validation value, of those whose checkpoint stands: test queries
    select nothing.

    Where rows mix trials with their first stage, all values are of the depth at which they were
    mixed; a mix is taken only where it is better than every model alone.
    """
    found = {trial.name: builder.find(plan.last(trial)) for trial in plan.trials}
    standing = {name: checkpoint for name, checkpoint in found.items() if checkpoint is not None}
    models = [
        model
        for row in rows
        if row.mix is not None and len(row.plan.trials) == 1
        for trial in row.plan.trials
        if trial.name in standing and (tried := builder.find(row.mix.weight())) is not None
        for model in _alone_and_mixed(trial, plan, row, tried)
    ]
    for trial in plan.trials if not models else ():
        if trial.name in standing:
            validation = standing[trial.name].counts["best"]
            value = float(validation[trial.experiment.compared_by])
            models.append((value, Best(trial, plan)))
    models.sort(key=lambda pair: pair[1].mixed is not None)  # of equal ones, the simpler
    return max(models, key=lambda pair: pair[0])[1] if models else None


def _alone_and_mixed(
    trial: Trial, plan: Plan, row: DerivedRow, tried: Artifact
) -> list[tuple[float, Best]]:
    """The validation values of a model alone and mixed; of a mix without the model there is none.

    Args:
        tried: the value of every weight.
    """
    table = pq.read_table(tried.local() / "weights.parquet").to_pydict()
    by_weight = dict(zip(table["weight"], table["value"], strict=True))
    models = [(float(by_weight[1.0]), Best(trial, plan))]
    if 0 < (weight := float(tried.counts["weight"])) < 1:
        models.append((float(by_weight[weight]), Best(trial, plan, row)))
    return models


def best_of_trial(trial: Trial, builder: Builder) -> Best:
    """The trial's model, alone or as its recipe's rows mix it."""
    plan = Plan.of([trial])
    is_mixed = "interpolation" in trial.experiment.evaluation.ensembles
    rows = derived_rows(plan, ("interpolation",) if is_mixed else ())
    return best_of(plan, rows, builder) or Best(trial, plan)
