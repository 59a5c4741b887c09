"""`tracking` in a recipe: an address alone, or a section with the names that MLflow has."""

from __future__ import annotations

import pytest
import yaml

from raypipe.config import ConfigError
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.tracking.section import Tracking, tracked_tags

SECTION = {"experiment": "team/search", "registered_model": "ranker", "owner": "mei"}


def test_an_address_alone_is_the_uri(recipe, tmp_path):
    experiment = load(Experiment, recipe)
    assert experiment.tracking == Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert (experiment.tracked_experiment, experiment.registered_model) == ("tiny", "tiny")
    named = load(Experiment, recipe, ["tracking.experiment=team"])
    assert (named.tracking.uri, named.tracked_experiment) == (experiment.tracking.uri, "team")
    assert load(Experiment, recipe, ["tracking=null"]).tracking == Tracking()


def test_the_section_moves_no_digest(recipe):
    plain = load(Experiment, recipe)
    words = [f"tracking.{name}={value}" for name, value in SECTION.items()]
    named = load(Experiment, recipe, [*words, "tracking.tags={team: search}"])
    assert named.tracked_experiment == "team/search" and named.registered_model == "ranker"
    assert named.metrics(named.run_of(named.trained())).digest == (
        plain.metrics(plain.run_of(plain.trained())).digest
    )


def test_an_address_changes_nothing_else_of_a_section(tmp_path, recipe):
    base = yaml.safe_load(recipe.read_text()) | {"tracking": dict(SECTION)}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "on.yaml").write_text("base: base.yaml\ntracking: http://here\n")
    (tmp_path / "further.yaml").write_text("base: on.yaml\ntracking: {owner: jo}\n")
    expected = Tracking(uri="http://here", **SECTION)
    assert load(Experiment, tmp_path / "on.yaml").tracking == expected
    assert load(Experiment, tmp_path / "further.yaml").tracking == expected.replace(owner="jo")
    overridden = load(Experiment, tmp_path / "base.yaml", ["tracking=http://here"])
    assert overridden.tracking == expected


def test_the_owner_is_whom_mlflow_shows():
    assert tracked_tags(Tracking(**SECTION, tags={"team": "search"})) == {
        **{"team": "search", "owner": "mei", "mlflow.user": "mei"}
    }
    assert tracked_tags(Tracking()) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tracking.experiment=Default", "expected another name than that of MLflow's own"),
        ("tracking={experimen: x}", r"unknown key 'experimen'; did you mean 'experiment'"),
        ("tracking.tags={mlflow.user: x}", "expected tags of your own, found 'mlflow.user'"),
        ("tracking={uri: 'htp://u:hush@host'}", "tracking: expected a scheme .* found 'htp'"),
    ],
)
def test_what_is_wrong_is_one_sentence(recipe, text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load(Experiment, recipe, [text])
    assert "hush" not in str(caught.value)
