"""The schema is readable: every field has a meaning, and what is written from fields is current."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from raypipe.config import to_yaml
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.schema import (
    NAME,
    about,
    classes,
    commented_yaml,
    entries,
    json_schema,
    own_entries,
)

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "jobs" / "recipes").rglob("*.yaml"))


def test_every_field_has_a_meaning():
    lacking = [
        f"{cls.__name__}.{name}"
        for cls in classes()
        for name, field in cls.model_fields.items()
        if name != "type" and not field.description
    ]
    assert lacking == []


def test_every_choice_says_what_it_is():
    assert [cls.__name__ for cls in classes() if not about(cls)] == []


def test_entries_know_types_bounds_and_defaults():
    by_key = {(entry.key, entry.choice): entry for entry in entries()}
    rate = by_key[f"stages.{NAME}.lr", ""]
    assert (rate.kind, rate.default, rate.decides) == ("number, > 0, < 1", "2e-05", True)
    loss = by_key[f"stages.{NAME}.loss", ""]
    assert loss.default == "" and "infonce" in loss.kind and len(loss.choices) > 10
    assert not by_key["resources.workers", ""].decides
    assert by_key["candidates.k1", "bm25"].default == "1.5"
    assert by_key["order", ""].kind == "a list of text | null"


def test_a_class_has_its_own_fields_only():
    for cls in classes():
        assert {e.key for e in own_entries(cls)} == cls.model_fields.keys() - {"type"}


def test_the_schema_beside_the_recipes_is_current():
    written = json.loads((ROOT / "jobs/recipes/schema.json").read_text())
    assert written == json.loads(json.dumps(json_schema())), (
        "run: raypipe explain --schema jobs/recipes/schema.json"
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_editors_find_nothing_wrong_in_a_shipped_recipe(path):
    line = path.read_text().splitlines()[1]
    named = line.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == ROOT / "jobs/recipes/schema.json"
    validator = Draft202012Validator(json_schema())
    assert [e.message for e in validator.iter_errors(yaml.safe_load(path.read_text()))] == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_with_comments_reads_back_as_itself(path):
    experiment = load(Experiment, path)
    text = commented_yaml(experiment)
    assert yaml.safe_load(text) == yaml.safe_load(to_yaml(experiment))
    assert "    # Highest learning rate.\n    lr: " in text
    assert max(map(len, (line for line in text.splitlines() if "#" in line))) <= 100


def test_editors_find_what_is_wrong():
    validator = Draft202012Validator(json_schema())
    wrong = {"stages": {"one": {"loss": {"type": "infonse"}, "lr": 3}}, "sede": 1}
    places = {".".join(map(str, error.path)) for error in validator.iter_errors(wrong)}
    assert {"", "stages.one.lr", "stages.one.loss"} <= places
