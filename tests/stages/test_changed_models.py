"""A stage that goes on from the weights of a stage of another model, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from beir_recipe import DATA, read_recipe
from chunks_here import builder_here
from safetensors.torch import load_file
from sentence_encoders import as_sentence_encoder
from stages_here import trains_here

from raypipe.recipe.experiment import Experiment
from raypipe.stages.stage import history

RECIPE = (
    "name: changing\n"
    + DATA
    + """\
candidates: {{type: dense, backbone: "{backbone}", max_length: 32, depth: 20}}
groups:
  negatives: {{type: random_window, count: 3, low: 1, high: 20}}
model: {{backbone: "{backbone}", head: {head}, hidden_dropout: 0.0}}
truncation: {{type: longest_first, max_length: 48}}
stages:
  texts:
    model: {{type: bi_encoder, backbone: "{backbone}", query_prefix: "draft ", max_length: 24,
      query_length: 16, hidden_dropout: 0.0}}
    loss: {{type: infonce}}
    lr: 3.0e-3
    queries_per_step: 6
    steps: 6
    validations: 1
  pairs: {{loss: {{type: infonce}}, lr: 3.0e-3, queries_per_step: 6, steps: 6, validations: 1}}
evaluation: {{depth: 10, validation_depth: 10, measures: [nDCG@10]}}
precision: fp32
resources: {{cpus_per_worker: 1}}
storage: {folder}/storage
"""
)
BARELY = 1.0e-9
"""A rate at which one step moves no weight that float32 shows."""


@pytest.fixture
def read(tmp_path, beir_folder, tiny_backbone):
    """Reads the recipe over a sentence encoder, or over its plain transformer."""

    def of(head: str, *words: str) -> Experiment:
        backbone = tiny_backbone
        if head == "similarity":
            backbone = as_sentence_encoder(tiny_backbone, tmp_path / "encoder")
        return read_recipe(RECIPE, tmp_path, beir_folder, backbone, words, head=head)

    return of


def layers(folder: Path) -> dict[str, torch.Tensor]:
    """The transformer's weights but for the pooler, under the names that they have alone."""
    found = load_file(folder / "model.safetensors")
    named = {name.removeprefix("bert.").removeprefix("encoder."): w for name, w in found.items()}
    # without a prefix, the layers' names begin with "encoder." themselves
    names = {name.removeprefix("encoder."): w for name, w in named.items()}
    return {n: w for n, w in names.items() if n.startswith(("embeddings.", "layer."))}


def agree(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    assert some.keys() == others.keys() and len(some) > 30
    return all(torch.allclose(some[name], others[name], atol=1e-6) for name in some)


@pytest.mark.parametrize("head", ["classifier", "similarity"])
def test_a_re_ranker_begins_with_the_retrievers_transformer(read, head, tiny_backbone, monkeypatch):
    words = ["order=texts -> pairs", f"stages.pairs.lr={BARELY}", "stages.pairs.steps=1"]
    experiment = read(head, *words)
    builder = trains_here(builder_here(experiment.store(), monkeypatch), monkeypatch)
    first, last = experiment.trained().chain()
    before, after = builder.get(first).local(), builder.get(last).local()
    assert agree(layers(before), layers(after))
    assert not agree(layers(before), layers(tiny_backbone))

    from sentence_transformers import CrossEncoder, SentenceTransformer

    retriever = SentenceTransformer(str(before), device="cpu")
    assert retriever.encode_query(["a query"]).shape == (1, 32)
    ranker = CrossEncoder(str(after), trust_remote_code=True, device="cpu")
    assert not (after / "modules.json").exists() and not (after / "1_Pooling").exists()
    pairs = [("a query", "a document"), ("a query", "another one")]
    ours = last.model.load(after, 1, training=False, device="cpu")
    inputs = ranker.tokenizer(*zip(*pairs, strict=True), padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = ours(**inputs).logits[:, 0].numpy()
    np.testing.assert_allclose(ranker.predict(pairs), expected, atol=1e-5)
    # the start is a choice only where it ranks before any training
    validated = [row for row in history(builder.get(last)) if "val/nDCG@10" in row]
    assert len(validated) == (2 if head == "similarity" else 1)
    run = builder.get(experiment.run_of(last)).table()
    assert len(run) == 12


@pytest.mark.parametrize("head", ["classifier", "similarity"])
def test_a_retriever_begins_with_the_re_rankers_transformer(
    read, head, tiny_backbone, monkeypatch, beir_folder
):
    experiment = read(head, "order=pairs -> texts", f"stages.texts.lr={BARELY}")
    builder = trains_here(builder_here(experiment.store(), monkeypatch), monkeypatch)
    first, last = experiment.trained().chain()
    before, after = builder.get(first).local(), builder.get(last).local()
    assert agree(layers(before), layers(after))
    assert not agree(layers(before), layers(tiny_backbone))

    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(after), device="cpu")
    assert model.prompts == {"query": "draft ", "document": ""}
    assert not list(after.glob("*.py"))
    ranked = builder.get(experiment.run_of(last)).table().to_pylist()
    files = [beir_folder / f"{name}.jsonl" for name in ("corpus", "queries")]
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    texts = {row["_id"]: row["text"] for row in rows}
    for row in ranked[:4]:
        head_docs = row["doc_ids"][: experiment.depth()]
        query = model.encode_query([texts[row["query_id"]]])
        cosines = (query @ model.encode_document([texts[d] for d in head_docs]).T)[0]
        np.testing.assert_allclose(row["scores"][: len(head_docs)], cosines / 0.05, atol=2e-4)
