"""Recipes over the small collection, written into a test's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load

DATA = """\
data:
  train: {{dataset: "beir:{data}", split: train}}
  validation: {{dataset: "beir:{data}", split: validation}}
  test: {{dataset: "beir:{data}", split: test}}
"""
"""The three splits; `{data}` is the collection's folder."""


def read_recipe(
    text: str, folder: Path, data: Path, backbone: Path, words: Sequence[str] = (), **more: str
) -> Experiment:
    """The recipe of `text` with these overrides; its storage is below the folder.

    Args:
        text: with places for `data`, `backbone`, `folder` and what `more` names.
    """
    path = folder / "recipe.yaml"
    path.write_text(text.format(data=data, backbone=backbone, folder=folder, **more))
    return load(Experiment, path, words)
