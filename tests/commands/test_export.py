"""The forms of an exported model: who opens them, their scores, and what is refused before work."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
from card_facts import blocks
from sentence_transformers import CrossEncoder as TheirCrossEncoder

from raypipe.commands.compare import run
from raypipe.commands.export import check_form, export
from raypipe.config import ConfigError
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.storage.builder import Builder
from raypipe.sweep.plan import Plan

ALONE = ["sweep.space={}", "order=contrastive", "reference=contrastive"]
SIMILARITY = [*ALONE, "model.head=similarity"]
QUERY, DOCS = "what is it", ["one document", "another [SEP] longer document"]


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ("onxx", r"^--form onxx: expected transformers, .*, tevatron, .*; did you mean 'onnx'\?$"),
        (
            "classifier",
            r"^--form classifier: distils a similarity head .* has a classifier already",
        ),
    ],
)
def test_a_form_that_the_model_cannot_have(recipe, form, problem):
    with pytest.raises(ConfigError, match=problem):
        check_form(load(Experiment, recipe, ALONE), form)


def test_onnx_without_its_extra(recipe, monkeypatch):
    experiment = load(Experiment, recipe, ALONE)
    check_form(experiment, "onnx")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    with pytest.raises(
        ConfigError,
        match=r"^--form onnx: onnxscript not installed; pip install 'raypipe\[onnx\]'$",
    ):
        check_form(experiment, "onnx")


def test_a_similarity_head_has_every_form(recipe):
    for form in ("transformers", "classifier", "onnx"):
        check_form(load(Experiment, recipe, SIMILARITY), form)


@pytest.mark.ray
def test_the_forms_of_a_similarity_head(mined_recipe, unprobed, tmp_path, monkeypatch):
    experiment = load(Experiment, mined_recipe, SIMILARITY)
    assert not run(experiment, lambda line: None).failed
    (trial,) = expand(experiment)
    builder = Builder(experiment.store())
    said: list[str] = []
    for form in ("transformers", "classifier", "onnx"):
        export(trial, builder, tmp_path / form, form, said.append)
    pairs = [(QUERY, doc) for doc in DOCS]
    whole = TheirCrossEncoder(str(tmp_path / "transformers"), trust_remote_code=True, device="cpu")
    expected = whole.predict(pairs)

    files = {path.name for path in (tmp_path / "onnx").iterdir()}
    assert files == {"model.onnx", "tokenizer.json", "README.md"}
    space: dict = {}
    monkeypatch.chdir(tmp_path / "onnx")
    example, code = blocks((tmp_path / "onnx" / "README.md").read_text("utf-8"))
    exec(example, space)
    space |= {"query": QUERY, "documents": DOCS}
    exec(code, space)
    np.testing.assert_allclose(space["scores"], expected, rtol=0, atol=1e-4)

    plain = TheirCrossEncoder(str(tmp_path / "classifier"), trust_remote_code=False, device="cpu")
    config = json.loads((tmp_path / "classifier" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert "auto_map" not in config and not list((tmp_path / "classifier").glob("*.py"))
    assert plain.predict(pairs).shape == (2,)
    card = (tmp_path / "classifier" / "README.md").read_text()
    sentence = said[1]
    assert sentence in card and "| test, similarity head |" in card
    stage = Plan.of([trial]).last(trial)
    head = builder.get(stage).counts["best"]["nDCG@10"]
    assert f"({head:.4f} to " in sentence  # the stage's own validation, measured again
