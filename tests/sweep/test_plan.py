"""The stages behind the trials, each built once; needs no cluster."""

from __future__ import annotations

import pytest

from raypipe.commands.compare import plan_of
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.sweep.plan import Plan

ENSEMBLES = "evaluation.ensembles=[interpolation]"


@pytest.fixture
def trained(monkeypatch) -> list[Experiment]:
    """The experiments whose stages were built."""
    experiments: list[Experiment] = []
    build = Experiment.trained

    def counted(experiment):
        experiments.append(experiment)
        return build(experiment)

    monkeypatch.setattr(Experiment, "trained", counted)
    return experiments


def test_a_plan_knows_the_stages_of_its_trials(recipe):
    one, two = expand(load(Experiment, recipe))
    plan = Plan.of([one, two])
    assert [stage.stage_name for stage in plan.chain(two)] == ["contrastive", "distil"]
    assert plan.last(one).digest == plan.chain(two)[0].digest
    assert len(plan.stages) == 2
    assert (
        plan.metrics(two).digest
        == two.experiment.metrics(two.experiment.run_of(two.experiment.trained())).digest
    )


def test_parts_of_a_plan_keep_its_stages(recipe, trained):
    one, two = expand(load(Experiment, recipe))
    plan = Plan.of([one, two])
    assert plan.only([two]).last(two) is plan.last(two)
    assert plan.without(["contrastive"]).trials == [two]
    joined = Plan.joined([plan.only([two]), plan.only([one])])
    assert joined.trials == [two, one] and joined.last(one) is plan.last(one)
    assert trained == [one.experiment, two.experiment]


def test_planning_builds_the_stages_of_every_trial_once(recipe, unprobed, trained):
    comparison, builder = plan_of(load(Experiment, recipe, [ENSEMBLES]))
    comparison.plan_lines(builder)
    assert trained == [trial.experiment for trial in comparison.trials]
