"""Shipped recipes where none of their data is: what is missing is said with a remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raypipe.config import ConfigError
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand

RECIPES = Path(__file__).resolve().parents[2] / "jobs" / "recipes"
NAMES = sorted(str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.rglob("*.yaml"))
FETCHED_OR_MADE = {
    *("cadet-small", "default", "label-budgets-small", "multistage-scifact", "pydoc"),
    *("pydoc-installed", "scifact", "zero-label-scifact", "zero-label-small"),
    *("studies/teacher-pydoc", "studies/teacher-scifact"),
}
"""Recipes on data that Python's own docstrings are, or that ir_datasets fetches."""
OTHERS_TEACHER = {
    *("studies/multistage-pydoc", "studies/multistage-scifact", "studies/objectives-x-depth"),
}
"""Recipes on such data whose teacher another recipe trains; their heads say which."""
OWN_CORPUS = {"zero-label"}
"""Recipes on documents that people bring."""
COMMAND = re.compile(r"`raypipe data [\w-]+` (builds it of|says which files to fetch)")


def problem(name: str) -> str:
    """What the checks before work say of the first trial's data; empty if they pass."""
    try:
        expand(load(Experiment, RECIPES / f"{name}.yaml"))[0].experiment.check(model=False)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", NAMES)
def test_the_error_names_the_command_that_builds_the_folder(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAYPIPE_DATA", raising=False)
    said = problem(name)
    if name in FETCHED_OR_MADE:
        assert said == ""
    elif name in OTHERS_TEACHER:
        assert re.search(r"`raypipe train \S*studies/teacher-\w+.yaml --export \S+` makes it", said)
    elif name in OWN_CORPUS:
        assert "raypipe-data/corpus: no folder at" in said
        assert "put corpus.jsonl there, or name yours as data.train.dataset" in said
    else:
        assert COMMAND.search(said), said
