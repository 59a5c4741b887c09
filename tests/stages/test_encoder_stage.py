"""A stage that trains on lists of another stage's model, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from beir_recipe import DATA, read_recipe
from chunks_here import builder_here
from stages_here import trains_here

from raypipe.recipe.experiment import Experiment

RECIPE = (
    "name: hard\n"
    + DATA
    + """\
candidates: {{type: dense, of: vectors, depth: 20}}
groups: {{negatives: {{type: top_k, count: 3}}}}
model: {{backbone: "{backbone}", hidden_dropout: 0.0}}
truncation: {{type: longest_first, max_length: 48}}
stages:
  vectors:
    model: {{type: bi_encoder, backbone: "{backbone}", query_prefix: "draft ", max_length: 24,
      query_length: 16, hidden_dropout: 0.0}}
    groups:
      candidates: {{type: dense, backbone: "{backbone}", max_length: 32, depth: 20}}
      negatives: {{type: random_window, count: 3, low: 1, high: 20}}
    loss: {{type: infonce}}
    lr: 3.0e-3
    queries_per_step: 6
    steps: 12
    validations: 1
  pairs: {{loss: {{type: infonce}}, lr: 3.0e-3, queries_per_step: 6, steps: 2, validations: 1}}
order: pairs
evaluation: {{depth: 10, validation_depth: 10, measures: [nDCG@10]}}
precision: fp32
resources: {{cpus_per_worker: 1}}
storage: {folder}/storage
"""
)


@pytest.fixture
def experiment(tmp_path, beir_folder, tiny_backbone) -> Experiment:
    return read_recipe(RECIPE, tmp_path, beir_folder, tiny_backbone)


def texts(folder: Path) -> dict[str, str]:
    files = [folder / f"{name}.jsonl" for name in ("corpus", "queries")]
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return {row["_id"]: row["text"] for row in rows}


def test_lists_and_negatives_are_those_of_the_trained_model(experiment, beir_folder, monkeypatch):
    experiment.check()
    builder = trains_here(builder_here(experiment.store(), monkeypatch), monkeypatch)
    last = builder.get(experiment.trained())  # with all that it is made of
    _, encoder = experiment.encoder("vectors")
    checkpoint = builder.find(encoder)
    assert checkpoint is not None and encoder.digest in builder.made
    assert (last.local() / "config.json").is_file()

    from sentence_transformers import SentenceTransformer

    model, text_of = SentenceTransformer(str(checkpoint.local()), device="cpu"), texts(beir_folder)
    docs = sorted(name for name in text_of if name.startswith("d"))
    vectors = model.encode_document([text_of[name] for name in docs])
    lists = builder.get(experiment.training("pairs").candidates()).table().to_pylist()
    assert len(lists) == 36
    for row in lists:
        cosines = (model.encode_query([text_of[row["query_id"]]]) @ vectors.T)[0]
        np.testing.assert_allclose(row["scores"], np.sort(cosines)[::-1][:20], atol=1e-5)
    found = {row["query_id"]: row["doc_ids"] for row in lists}
    groups = builder.get(experiment.training("pairs").sampled()).table().to_pylist()
    assert len(groups) == 36
    for row in groups:
        relevant = row["doc_ids"][: row["relevance"].count(1)]
        hardest = [name for name in found[row["query_id"]] if name not in relevant][:3]
        assert row["doc_ids"][len(relevant) :] == hardest

    # the first stage of the test is the model's, too, and its vectors of documents are shared
    first = experiment.first_stage("test")
    assert first.doc_vectors.digest == experiment.training("pairs").candidates().doc_vectors.digest
    assert len(builder.get(first).table()) == 12
    means = builder.get(experiment.metrics(first)).counts["means"]
    untrained = experiment.stages["vectors"].groups.candidates
    plain = untrained.candidates(
        experiment.collection("test"), experiment.queries("test"), experiment.precision
    )
    before = builder.get(experiment.metrics(plain)).counts["means"]
    assert means["nDCG@10"] > before["nDCG@10"]
