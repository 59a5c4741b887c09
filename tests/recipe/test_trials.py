"""Spaces: conditions, fields that change together, and what is refused."""

from __future__ import annotations

import json

import pytest

from raypipe.config import ConfigError
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import by_row, expand

LOSSES = {"infonce": {"type": "infonce"}, "hinge": {"type": "hinge"}, "bce": {"type": "bce"}}


def trials(recipe, space, *more: str):
    given = [f"sweep.space={json.dumps(space)}", "order=contrastive", "reference=null", *more]
    return expand(load(Experiment, recipe, given))


def test_a_key_varies_only_where_its_condition_holds(recipe):
    space = {
        "stages.contrastive.loss": LOSSES,
        "stages.contrastive.loss.temperature": {
            "values": [0.5, 1.0],
            "when": {"stages.contrastive.loss": "infonce"},
        },
        "stages.contrastive.loss.margin": {
            "values": {"narrow": 0.5, "wide": 2.0},
            "when": {"stages.contrastive.loss": ["hinge"]},
        },
    }
    found = trials(recipe, space)
    names = ["infonce / 0.5", "infonce / 1.0", "hinge / narrow", "hinge / wide", "bce"]
    assert [trial.name for trial in found] == names
    losses = [trial.experiment.stages["contrastive"].loss for trial in found]
    assert [one.temperature for one in losses[:2]] == [0.5, 1.0]
    assert [one.margin for one in losses[2:4]] == [0.5, 2.0]


def test_without_a_condition_the_error_says_how_to_state_it(recipe):
    space = {"stages.contrastive.loss": LOSSES, "stages.contrastive.loss.margin": [1.0]}
    with pytest.raises(ConfigError, match=r"unknown key 'margin'.*takes `when`"):
        trials(recipe, space)


def test_fields_that_change_together(recipe):
    space = {
        "recipe": {
            "small": {"stages.contrastive.lr": 1e-3, "model": {"keep_layers": 1}},
            "large": {"stages.contrastive.lr": 1e-4},
        },
        "seed": [1, 2],
    }
    found = trials(recipe, space)
    assert [t.name for t in found] == [
        "small / seed 1", "small / seed 2", "large / seed 1", "large / seed 2"
    ]  # fmt: skip
    assert list(by_row(found)) == ["small", "large"]
    settings = [
        (t.experiment.stages["contrastive"].lr, t.experiment.model.keep_layers) for t in found
    ]
    assert settings == [(1e-3, 1), (1e-3, 1), (1e-4, None), (1e-4, None)]


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"seed": 3}, "sweep.space.seed"),
        ({"seed": []}, "sweep.space.seed: expected a list, or a mapping"),
        ({"seed": {"type": "integer", "low": 1, "high": 9}}, "a range has no list of values"),
        (
            {"seed": [1], "order": {"values": ["contrastive"], "when": {"sead": "1"}}},
            "when.sead: no earlier key of the space; did you mean 'seed'?",
        ),
        (
            {"seed": [1], "order": {"values": ["contrastive"], "when": {"seed": "2"}}},
            "when.seed: there is no '2' there; valid: 1",
        ),
    ],
)
def test_wrong_spaces_are_named(recipe, space, expected):
    with pytest.raises(ConfigError) as error:
        trials(recipe, space)
    assert expected in str(error.value)


def test_published_rows_must_be_rows(recipe):
    table = {
        "dataset": "x", "first_stage": "BM25", "source": "y", "values": {"AP": {"contrastiv": 0.5}}
    }  # fmt: skip
    one = load(Experiment, recipe, [f"published=[{json.dumps(table)}]"])
    with pytest.raises(ConfigError, match=r"published\.0\.values: no row 'contrastiv'; did you"):
        expand(one)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "uniform", "low": 2, "high": 1}, "expected low < high, found 2 and 1"),
        ({"type": "uniform", "low": 0, "high": 1, "log": True}, "low: expected more than 0"),
        ({"type": "unifrom", "low": 0, "high": 1}, "input tag 'unifrom' found"),
    ],
)
def test_wrong_ranges_are_named(recipe, given, expected):
    text = json.dumps({"mode": "search", "space": {"seed": given}})
    with pytest.raises(ConfigError) as error:
        expand(load(Experiment, recipe, [f"sweep={text}", "reference=null"]))
    assert expected in str(error.value)
