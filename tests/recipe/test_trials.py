"""Spaces: conditions, fields that change together, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from raypipe.config import ConfigError
from raypipe.recipe import trials as module
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load, validate
from raypipe.recipe.trials import Trial, by_row, expand

DEFAULT = Path(__file__).parents[2] / "jobs" / "recipes" / "pydoc.yaml"
BASE = ["sweep.space={}", "reference=null"]
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


# --- of the demo recipe ---------------------------------------------------------------------------


def read(*overrides: str) -> Experiment:
    return load(Experiment, DEFAULT, overrides)


def spread(space: dict[str, Any], *overrides: str) -> list[Trial]:
    return expand(
        read(*BASE, *overrides, f"sweep.space={yaml.safe_dump(space, sort_keys=False).strip()}")
    )


def test_an_empty_space_is_one_trial_named_by_its_stages():
    (trial,) = expand(read(*BASE))
    assert trial.name == "contrastive -> distil" and trial.values == {}
    assert trial.experiment == read(*BASE)


def test_the_last_key_varies_fastest():
    trials = spread({"seed": [1, 2], "stages.distil.lr": [0.01, 0.02], "order": ["distil"]})
    assert [trial.name for trial in trials] == [
        "seed 1 / 0.01 / distil",
        "seed 1 / 0.02 / distil",
        "seed 2 / 0.01 / distil",
        "seed 2 / 0.02 / distil",
    ]
    assert [trial.row for trial in trials[:2]] == [trial.row for trial in trials[2:]]
    assert trials[0].row == "0.01 / distil"
    found = [(t.experiment.seed, t.experiment.stages["distil"].lr) for t in trials]
    assert found == [(1, 0.01), (1, 0.02), (2, 0.01), (2, 0.02)]
    assert trials[1].values == {"seed": "1", "stages.distil.lr": "0.02", "order": "distil"}
    assert {trial.experiment.stage_names for trial in trials} == {("distil",)}


def test_labels_name_the_rows_and_mappings_are_merged():
    space = {"model": {"deep": {"keep_layers": None}, "flat": {"keep_layers": 2}}}
    trials = spread(space, "model.attention_dropout=0.2", "model.keep_layers=5")
    assert [trial.name for trial in trials] == ["deep", "flat"]
    assert [trial.experiment.model.keep_layers for trial in trials] == [None, 2]
    assert {trial.experiment.model.attention_dropout for trial in trials} == {0.2}
    assert {trial.experiment.model.backbone for trial in trials} == {read().model.backbone}


def test_mappings_are_merged_at_every_depth():
    change = {"distil": {"lr": 0.03, "loss": {"scale": 2.0}}}
    (trial,) = spread({"stages": {"x": change}}, "stages.distil.clip=3")
    stage = trial.experiment.stages["distil"]
    assert (stage.lr, stage.clip, stage.loss.type, stage.loss.scale) == (0.03, 3, "margin_mse", 2)
    assert trial.experiment.stages["contrastive"] == read().stages["contrastive"]


def test_a_mapping_with_a_type_replaces():
    losses = {"margin": {"type": "margin_mse"}, "pairs": {"type": "ranknet", "targets": "teacher"}}
    trials = spread({"stages.distil.loss": losses}, "stages.distil.loss.scale=2")
    assert trials[0].experiment.stages["distil"].loss.scale == 1.0
    assert trials[1].experiment.stages["distil"].loss.semantic()["targets"] == "teacher"


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"modl.keep_layers": [3]}, "unknown key 'modl'; did you mean 'model'?"),
        ({"stages.distil.lrr": [3]}, "stages.distil.lrr: unknown key 'lrr'"),
        ({"stages.distll.lr": [0.1]}, "there is no 'distll' here; did you mean 'distil'?"),
        ({"seed": [1, 1]}, "sweep.space.seed: expected values with different names, found [1, 1]"),
        (
            {"seed": [1, 2], "stages.distil.lr": [0.1, 7]},
            "sweep.space: seed=1, stages.distil.lr=7: stages.distil.lr: input should be less than",
        ),
        (
            {"order": {"short": "contrastive", "wrong": "contrast"}},
            "sweep.space: order=wrong: order: there is no stage 'contrast'",
        ),
        (
            {"teacher": {"with": {}, "without": None}},
            "sweep.space: teacher=without: stages.distil.loss: margin_mse needs a",
        ),
    ],
)
def test_a_wrong_combination_is_named(space, expected):
    with pytest.raises(ConfigError) as error:
        spread(space)
    assert expected in str(error.value)


def test_the_reference_is_a_row_of_the_table():
    space = "sweep.space={order: [contrastive, distil]}"
    for row in ("contrastive", "BM25", "teacher: bi-encoder + first stage"):
        assert len(expand(read(space, f"reference='{row}'"))) == 2
    with pytest.raises(ConfigError) as error:
        expand(read(space, "reference=contrastiv"))
    assert str(error.value) == "reference: no row 'contrastiv'; did you mean 'contrastive'?"
    with pytest.raises(ConfigError, match="reference: no row 'bm-25'"):
        expand(read(space, "reference=bm-25", "teacher=null", "stages.distil.loss.type=infonce"))


@pytest.mark.parametrize("name", ["oracle", "BM25", "zero-shot: tiny-bert"])
def test_a_trial_has_no_other_rows_name(recipe, name):
    with pytest.raises(ConfigError, match=rf"sweep.space: expected rows .*, found '{name}'"):
        trials(recipe, {"stages.contrastive.lr": {name: 1e-3, "other": 2e-3}})
    tree = yaml.safe_load(recipe.read_text()) | {"sweep": {}, "reference": None}
    tree["stages"] = {name: tree["stages"]["contrastive"]}
    with pytest.raises(ConfigError, match="stages: expected rows of different names"):
        expand(validate(Experiment, tree, "r"))


def test_a_sweep_of_too_many_combinations_is_refused_before_they_are_made(recipe, monkeypatch):
    """20 keys of 10 values stand in a kilobyte, and for more trials than memory holds."""
    made = []
    monkeypatch.setattr(module, "trial_of", lambda *choices: made.append(choices))
    space = {f"stages.contrastive.f{key}": list(range(10)) for key in range(20)}
    expected = "sweep.space: expected at most 10,000 combinations, found more; take out values"
    with pytest.raises(ConfigError, match=expected):
        trials(recipe, space)
    assert not made


@pytest.mark.parametrize(("most", "refused"), [(6, False), (5, True)])
def test_as_many_combinations_as_the_limit_are_trials(recipe, monkeypatch, most, refused):
    monkeypatch.setattr(module, "MOST_TRIALS", most)
    space = {"seed": [1, 2, 3], "stages.contrastive.lr": [1e-5, 2e-5]}
    if refused:
        with pytest.raises(ConfigError, match="expected at most 5 combinations"):
            trials(recipe, space)
    else:
        assert len(trials(recipe, space)) == 6


def test_several_references_are_rows_of_the_table_each_named_once():
    space = "sweep.space={order: [contrastive, distil]}"
    given = {
        "BM25": ("BM25",),
        "[contrastive, BM25]": ("contrastive", "BM25"),
        "null": (),
        "[]": (),
    }
    for text, expected in given.items():
        experiment = read(space, f"reference={text}")
        assert experiment.reference == expected and len(expand(experiment)) == 2
    with pytest.raises(ConfigError, match="reference: no row 'distl'; did you mean 'distil'"):
        expand(read(space, "reference=[contrastive, distl]"))
    twice = "reference: expected every row once, found 'BM25' twice; name it once"
    with pytest.raises(ConfigError, match=twice):
        read(space, "reference=[BM25, contrastive, BM25]")


def test_human_queries_take_the_place_of_synthetic_ones(recipe, beir_folder):
    """Without their type, a mapping changes fields of what is there."""
    corpus = f"beir:{beir_folder}"
    judged = {"type": "judged", "dataset": corpus, "split": "train", "limit": 5}
    space = {"recipe": {"synthetic": {}, "labels": {"data.train": judged}}}
    synthetic = f"data.train={{type: synthetic, dataset: '{corpus}'}}"
    first, second = (trial.experiment.data.train for trial in trials(recipe, space, synthetic))
    assert (first.type, second.type) == ("synthetic", "judged")
    assert (second.limit, second.split) == (5, "train")
    assert "type" not in second.model_dump()
    space = {"data.train": {"few": {"limit": 5}, "all": {}}}
    few, every = (trial.experiment.data.train for trial in trials(recipe, space, synthetic))
    assert (few.type, few.limit, every.limit) == ("synthetic", 5, None)


def test_a_further_set_may_be_what_trials_differ_in(recipe, beir_folder):
    labels = {"queries": {"dataset": f"beir:{beir_folder}", "split": "train", "skip": 30}}
    labels["negatives"] = {"type": "top_k", "count": 2}
    space = {"recipe": {"alone": {}, "both": {"groups.further": {"labels": labels}}}}
    alone, both = (trial.experiment.groups.further for trial in trials(recipe, space))
    assert alone == {} and both["labels"].queries.skip == 30
