"""The stages behind the trials, each built once; needs no cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.commands.compare import plan_of
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.sweep.plan import Plan, Readiness

DEFAULT = Path(__file__).parents[2] / "jobs" / "recipes" / "default.yaml"
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


# --- the demo recipe ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def default_plan() -> Plan:
    return Plan.of(expand(load(Experiment, DEFAULT)))


def test_the_demo_trains_every_distinct_stage_once(default_plan):
    assert [trial.name for trial in default_plan.trials] == [
        f"MiniLM-{depth} / {order}"
        for depth in ("L6", "L3")
        for order in ("contrastive", "contrastive + kl", "contrastive -> distil")
    ]
    assert [len(chain) for chain in default_plan.chains] == [1, 1, 2, 1, 1, 2]
    assert len(default_plan.stages) == 6
    summary = default_plan.summary(lambda step: False)
    assert summary[0] == "6 trials, 6 distinct stages instead of 8"
    assert summary[3] == "  MiniLM-L6 / contrastive -> distil: contrastive -> distil"
    first = default_plan.chains[0][0].digest
    there = default_plan.summary(lambda step: step.digest == first)
    assert there[0].endswith("(1 already trained)")
    assert there[1:4] == [
        "  MiniLM-L6 / contrastive: contrastive (there)",
        "  MiniLM-L6 / contrastive + kl: distil",
        "  MiniLM-L6 / contrastive -> distil: contrastive (there) -> distil",
    ]


def test_trials_share_their_beginning_and_nothing_else(default_plan):
    chains = [[stage.digest for stage in chain] for chain in default_plan.chains]
    for at in (0, 3):
        assert chains[at][0] == chains[at + 2][0]
        assert chains[at + 1][0] != chains[at + 2][1]  # distil of a backbone, of a trained stage
    assert not {d for chain in chains[:3] for d in chain} & {d for c in chains[3:] for d in c}


def test_all_trials_share_their_groups_and_tokens(default_plan):
    assert len({stage.groups.digest for stage in default_plan.stages.values()}) == 1
    shared = default_plan.shared()
    assert len({step.digest for step in shared}) == len(shared)
    assert not {step.digest for step in shared} & set(default_plan.stages)
    kinds = {step.kind for step in shared}
    assert kinds == {"backbone", "groups", "tokens", "candidates", "queries", "collection"}


# --- who may start --------------------------------------------------------------------------------


@pytest.fixture
def standing() -> set[str]:
    """Digests of committed stages."""
    return set()


@pytest.fixture
def ready(default_plan, standing) -> Readiness:
    """The three trials of MiniLM-L6: contrastive (0), distil (1), contrastive -> distil (2)."""
    return Readiness(default_plan.chains, lambda step: step.digest in standing, [0, 1, 2])


def test_a_trial_waits_while_another_trains_its_stage(ready, standing, default_plan):
    assert ready.next() == 0 and ready.next() == 1
    assert ready.next() is None  # 0 trains the first stage of 2
    ready.finished(1)
    assert ready.next() is None  # 1 trained another stage
    standing.add(default_plan.chains[0][0].digest)
    assert ready.next() == 2  # on commit, whether trial 0 has ended or not
    assert ready.next() is None and ready.waiting == []


def test_a_trial_takes_over_after_a_failure(ready):
    assert (ready.next(), ready.next(), ready.next()) == (0, 1, None)
    ready.finished(0)  # without a commit
    assert ready.next() == 2


def test_the_longer_trial_may_train_for_the_shorter(default_plan, standing):
    ready = Readiness(default_plan.chains, lambda step: step.digest in standing, [2, 0, 1])
    assert ready.next() == 2
    assert ready.next() == 1  # 0 must wait, and does not hold up who comes after it
    assert ready.next() is None and ready.waiting == [0]
    standing.add(default_plan.chains[2][0].digest)
    assert ready.next() == 0


def test_finished_stages_hold_nobody_up(default_plan, standing):
    standing |= set(default_plan.stages)
    ready = Readiness(default_plan.chains, lambda step: step.digest in standing, list(range(6)))
    assert [ready.next() for _ in range(7)] == [0, 1, 2, 3, 4, 5, None]
