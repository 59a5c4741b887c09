"""Configurations: flat cells, digests, copies, and the nearest valid name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from raypipe.config import NOT_SEMANTIC, Config, digest, flatten, nearest
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load

DEFAULT = Path(__file__).parents[1] / "jobs" / "recipes" / "pydoc.yaml"


def read(*overrides: str) -> Experiment:
    return load(Experiment, DEFAULT, overrides)


class Leaf(Config):
    rate: float = Field(0.5, gt=0)


def test_flatten_gives_one_cell_per_field():
    flat = flatten(read("evaluation.measures=[AP, nDCG@10]", "data.train.limit=12"))
    assert flat["data.train.limit"] == 12
    assert flat["stages.distil.loss.type"] == "margin_mse"
    assert flat["evaluation.measures"] == '["AP", "nDCG@10"]'
    assert flat["order"] is None and flat["storage_shared"] is False
    assert flat["sweep.space.model.MiniLM-L3.keep_layers"] == 3
    kinds = {type(value) for value in flat.values()}
    assert kinds == {str, int, float, bool, type(None)}


@pytest.mark.parametrize(
    ("value", "flat"),
    [
        ({"a": {"b": 1, "c": {}}, "d": [1, {"e": 2}]}, {"a.b": 1, "d": '[1, {"e": 2}]'}),
        (Leaf(rate=2), {"rate": 2.0}),
        (3, {"": 3}),
    ],
)
def test_flatten(value, flat):
    assert flatten(value) == flat


# --- digests -------------------------------------------------------------------------------------


class Knob(Config):
    value: int = 1
    where: Annotated[str, NOT_SEMANTIC] = "here"
    inner: Leaf = Leaf()


class Newer(Knob):
    version: ClassVar[int] = 2


def test_only_semantic_fields_enter_the_digest():
    knob = digest(Knob())
    assert digest(Knob(where="there")) == knob
    assert digest(Knob(value=2)) != knob
    assert digest(Knob(inner=Leaf(rate=0.25))) != knob
    assert Knob().semantic() == {
        "class": "Knob",
        "version": 1,
        "value": 1,
        "inner": {"class": "Leaf", "version": 1, "rate": 0.5},
    }


def test_class_and_version_enter_the_digest(monkeypatch):
    before = digest(Knob())
    monkeypatch.setattr(Knob, "version", 3)
    changed = digest(Knob())
    monkeypatch.setattr(Leaf, "version", 4)
    nested = digest(Knob())
    assert len({before, changed, nested, digest(Newer()), digest({"value": 1})}) == 5


def test_digest_is_canonical():
    assert digest({"a": 1, "b": (1, 2)}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": "1"})
    assert digest("ü", 8) == digest("ü")[:8] and len(digest("ü")) == 16
    assert digest([1, 2, 3]) == "a615eeaee21de517"  # sha256sum of [1,2,3], in every process


def test_an_experiments_digest():
    recipe = read()
    for text in ("resources.workers=3", "storage=/x", "storage_shared=true", "tracking=y"):
        other = read(text)
        assert other != recipe and digest(other) == digest(recipe)
    for text in ("seed=2", "precision=fp16", "stages.distil.lr=1e-5", "truncation.max_length=97"):
        assert digest(read(text)) != digest(recipe)


def test_a_config_is_frozen_and_replace_validates():
    leaf = Leaf()
    with pytest.raises(ValueError, match="frozen"):
        leaf.rate = 2.0
    assert leaf.replace(rate=2).rate == 2.0 and leaf.rate == 0.5
    with pytest.raises(ValueError, match="greater than 0"):
        leaf.replace(rate=-1)
    with pytest.raises(ValueError, match="rat"):
        leaf.replace(rat=1)


@pytest.mark.parametrize(
    ("name", "valid", "text"),
    [
        ("distll", ["distil", "contrastive"], "; did you mean 'distil'?"),
        ("zzz", ["b", "a", "a"], "; valid: a, b"),
        ("zzz", [], ""),
    ],
)
def test_nearest(name, valid, text):
    assert nearest(name, valid) == text
