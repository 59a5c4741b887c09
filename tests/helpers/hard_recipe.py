"""A recipe whose re-ranker is trained on lists of the retriever that another stage trains."""

from __future__ import annotations

from pathlib import Path

from beir_recipe import DATA, read_recipe

from raypipe.recipe.experiment import Experiment

RECIPE = (
    "name: hard\n"
    + DATA
    + """\
candidates: {{type: bm25, depth: 20}}
groups: {{negatives: {{type: random_window, count: 3, low: 1, high: 20}}}}
model: {{backbone: "{backbone}", hidden_dropout: 0.0}}
truncation: {{type: longest_first, max_length: 48}}
stages:
  vectors:
    model: {{type: bi_encoder, backbone: "{backbone}", query_prefix: "draft ", max_length: 32,
      query_length: 16, hidden_dropout: 0.0}}
    loss: {{type: infonce}}
    steps: 6
    queries_per_step: 6
  again: {{loss: {{type: infonce}}, steps: 6, queries_per_step: 6}}
  pairs:
    groups:
      candidates: {{type: dense, of: vectors, depth: 20}}
      negatives: {{type: random_window, count: 3, low: 1, high: 20}}
    loss: {{type: infonce}}
    steps: 6
    queries_per_step: 6
order: pairs
evaluation: {{depth: 10, validation_depth: 10, measures: [nDCG@10]}}
precision: fp32
storage: {folder}/storage
"""
)
FIRST_STAGE = [
    "candidates={type: dense, of: vectors, depth: 20}",
    "stages.vectors.groups={candidates: {type: bm25, depth: 20}, negatives: {type: random_window, "
    "count: 3, low: 1, high: 20}}",
]


def read_hard(folder: Path, data: Path, backbone: Path, words: tuple[str, ...]) -> Experiment:
    """The recipe with these overrides, written into the folder."""
    return read_recipe(RECIPE, folder, data, backbone, words)
