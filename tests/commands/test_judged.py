"""What trials of one sweep must have in common, found before anything is trained."""

from __future__ import annotations

import json

import pytest

from raypipe.commands.checks import check_judged, differences
from raypipe.commands.compare import plan_of
from raypipe.commands.search import run_or_plan as search
from raypipe.config import ConfigError
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import Trial, expand


def read(recipe, space, *more: str, mode: str = "compare") -> Experiment:
    sweep = json.dumps({"mode": mode, "space": space})
    given = [f"sweep={sweep}", "order=contrastive", "reference=null", *more]
    return load(Experiment, recipe, given)


def trials(recipe, space, *more: str) -> list[Trial]:
    return expand(read(recipe, space, *more))


TWO = ["nDCG@10", "AP"]
SETS = 'evaluation.sets={"deep": {"queries": %s, "depth": 15}}'


@pytest.mark.parametrize(
    ("key", "values", "named"),
    [
        ("data.test.limit", [4, 8], "data.test.limit: 8 in trial '8', 4 in '4'"),
        ("data.test.skip", [0, 2], "data.test.skip: 2"),
        ("data.test.positive_relevance", [1, 2], "data.test.positive_relevance: 2"),
        ("evaluation.measures", {"a": TWO[:1], "b": TWO}, "evaluation.measures: AP"),
        ("evaluation.suites", {"a": [], "b": ["nanobeir"]}, "evaluation.suites: nanobeir"),
        (
            "evaluation.sets.deep.measures",
            {"a": ["nDCG@10"], "b": ["AP"]},
            "evaluation.sets.deep.measures: AP",
        ),
        ("evaluation.sets.deep.queries.limit", [3, 4], "evaluation.sets.deep.queries.limit: 4"),
        ("recipe", {"a": {"data.test.limit": 4}, "b": {"seed": 2}}, "data.test.limit: None"),
    ],
)
def test_other_queries_or_measures_are_an_error_before_work(recipe, key, values, named):
    data = load(Experiment, recipe).data.test.dataset
    further = SETS % json.dumps({"dataset": data, "split": "test"})
    with pytest.raises(ConfigError) as error:
        plan_of(read(recipe, {key: values}, further))
    assert str(error.value).startswith(named)
    assert "take this key out of sweep.space" in str(error.value)


def test_a_search_is_judged_on_the_same_queries_too(recipe):
    for key in ("data.test.limit", "data.validation.limit"):
        with pytest.raises(ConfigError, match=rf"{key}: 8 in trial '8', 4 in '4'"):
            search(read(recipe, {key: [4, 8]}, mode="search"), True)


def test_what_is_trained_may_differ(recipe):
    space = {"stages.contrastive.lr": [1e-3, 1e-4], "groups.negatives.count": [1, 2]}
    found = trials(recipe, space)
    check_judged(found)
    assert len(found) == 4 and differences(found) == []


@pytest.mark.parametrize(
    ("key", "values", "named"),
    [
        ("candidates.depth", [20, 30], "candidates"),
        ("evaluation.depth", [5, 10], "evaluation.depth"),
        ("truncation.max_length", [32, 48], "truncation"),
        ("data.validation.limit", [4, 8], "data.validation"),
        ("evaluation.sets.deep.depth", [5, 15], "evaluation.sets.deep.depth"),
    ],
)
def test_what_is_shown_once_is_named(recipe, key, values, named):
    data = load(Experiment, recipe).data.test.dataset
    further = SETS % json.dumps({"dataset": data, "split": "test"})
    comparison, _ = plan_of(read(recipe, {key: values}, further))
    assert differences(comparison.trials) == [named]
    assert comparison.shown_once() == [
        f"the trials differ in {named}: titles, first stage, teacher and oracle are those of "
        f"'{values[0]}'"
    ]
