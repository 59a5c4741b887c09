"""The controlled twins of published recipes: every arm on the same groups, every name a row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hub_models import as_if_on_the_hub

from raypipe.evaluation.report.published import published_for
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import Trial, by_row, expand, fixed_rows
from raypipe.sweep.questions import candidates_of, questions

RECIPES = Path(__file__).resolve().parents[2] / "jobs" / "recipes"
CONTROLLED = sorted(path.stem for path in RECIPES.glob("*-controlled.yaml"))


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory):
    """Models of the hub and the published files, as if they were there; files hold their names."""
    home = tmp_path_factory.mktemp("home")
    for recipe in RECIPES.glob("*.yaml"):
        text = re.sub(r"\$\{RAYPIPE_DATA:-(.*?)\}", r"\1", recipe.read_text())
        for name in re.findall(r"~/((?:msmarco|raypipe-data/cadet)/[\w.-]+)", text):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(name)
    with pytest.MonkeyPatch.context() as patch:
        as_if_on_the_hub(patch)
        patch.setenv("HOME", str(home))
        patch.delenv("RAYPIPE_DATA", raising=False)
        yield


def read(name: str) -> tuple[Experiment, list[Trial]]:
    experiment = load(Experiment, RECIPES / f"{name}.yaml")
    return experiment, expand(experiment)


@pytest.fixture(scope="module", params=CONTROLLED)
def controlled(request) -> tuple[Experiment, list[Trial]]:
    return read(request.param)


def groups_of(trials: list[Trial]) -> set[str]:
    return {s.groups.digest for t in trials for s in t.experiment.trained().chain()}


def test_every_published_recipe_has_its_twin():
    twins = {path.stem for path in RECIPES.glob("*.yaml") if "as published" in path.read_text()}
    assert {f"{name}-controlled" for name in twins} == set(CONTROLLED) != set()


def test_all_arms_train_on_the_same_groups(controlled):
    experiment, trials = controlled
    assert len(by_row(trials)) > 1
    assert len(groups_of(trials)) == 1
    candidates = candidates_of(questions(experiment, trials)).trials
    assert candidates and groups_of(candidates) == groups_of(trials)  # rates are chosen on them too


def test_as_published_the_groups_differ():
    assert len(groups_of(read("multistage")[1])) == 2


def test_the_reference_is_a_trained_row(controlled):
    experiment, trials = controlled
    assert set(experiment.reference) <= by_row(trials).keys()


def test_published_values_stand_beside_rows_and_sets_that_there_are(controlled):
    experiment, trials = controlled
    rows = {*by_row(trials), *fixed_rows(experiment)}
    shown = []
    for role in experiment.test_sets():
        queries, label = experiment.query_set(role), experiment.source(role).label
        values, _ = published_for(experiment.published, queries.dataset, queries.split, label)
        for measure, by_name in values.items():
            assert measure in experiment.measures(role) and by_name.keys() <= rows
            shown += [(role, measure)]
    assert len(shown) == sum(len(table.values) for table in experiment.published)
