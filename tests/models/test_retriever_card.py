"""Cards of bi-encoders: what they say of the vectors, and code that makes them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from card_facts import FACTS, blocks
from huggingface_hub import ModelCard

from raypipe.models.card import card
from raypipe.models.retriever_card import VectorFacts
from raypipe.models.trained_bi_encoder import TrainedBiEncoder

VECTORS = VectorFacts(
    width=384,
    pooling=("mean",),
    unit=True,
    query_prompt="query: ",
    doc_prompt="",
    query_length=64,
    doc_length=256,
)
RETRIEVER = dataclasses.replace(
    FACTS,
    vectors=VECTORS,
    head="",
    truncation={"type": "texts", "query": 64, "doc": 256},
    reads="64 tokens of the query, 256 of the document, each alone",
)


def test_the_hub_takes_it_for_a_sentence_encoder(tmp_path):
    card(RETRIEVER).save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.pipeline_tag == "sentence-similarity" and "cross-encoder" not in data.tags
    assert data.base_model == "nreimers/MiniLM-L6-H384-uncased"
    assert data.datasets == ["irds/beir_scifact_train"]


def test_it_says_how_a_text_becomes_a_vector():
    text = str(card(RETRIEVER))
    assert "A vector has 384 numbers: mean pooling of the token states, divided by" in text
    assert 'Prompts: `"query: "` before queries.' in text
    assert "the cosine of the vectors" in text and "raypipe retrieve --model FOLDER" in text
    for other in ("re-ranking:", "pyfunc", "AutoModelForSequenceClassification", "logits"):
        assert other not in text
    product = dataclasses.replace(VECTORS, unit=False, query_prompt="")
    other = str(card(dataclasses.replace(RETRIEVER, vectors=product)))
    assert "Prompts: none." in other and "the dot product of the vectors" in other


def test_it_says_which_texts_are_cut_otherwise_elsewhere():
    assert "cuts all texts at 256 tokens and raypipe, as in training, queries at 64" in str(
        card(RETRIEVER)
    )
    alike = dataclasses.replace(VECTORS, query_length=256)
    assert "sentence-transformers cuts" not in str(
        card(dataclasses.replace(RETRIEVER, vectors=alike))
    )


def test_a_mix_and_columns_are_served_without_the_pyfunc():
    mix = {"weight": 0.5, "columns": {"first_stage_score": 1.0}, "first_stage": "BM25", "depth": 9}
    facts = dataclasses.replace(RETRIEVER, interpolation=mix, text="{title} | {body}")
    text = str(card(facts))
    assert "pyfunc" not in text and "`raypipe retrieve` makes it alike" in text
    space = {"scores": [1.0, 3.0], "first_stage_score": [9.0, 1.0]}
    (mixed,) = [code for code in blocks(text) if "def z" in code]
    exec(mixed, space)
    np.testing.assert_allclose(space["mixed"], [0, 0], atol=1e-12)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_facts_are_those_of_a_checkpoint_and_the_code_gives_its_vectors(
    tiny_backbone, tmp_path, monkeypatch, pooling
):
    model = TrainedBiEncoder(
        backbone=str(tiny_backbone), pooling=pooling, normalize=False, doc_prefix="verified "
    )
    module = model.load(tiny_backbone, 1, training=False, device="cpu")
    lengths = {"type": "texts", "query": 16, "doc": 24}
    module.config.raypipe = {"truncation": lengths}
    model.save(module, tmp_path / "out", tiny_backbone, 24)
    facts = VectorFacts.of(tmp_path / "out")
    assert facts == VectorFacts(32, (pooling,), False, "", "verified ", 16, 24)
    monkeypatch.chdir(tmp_path / "out")
    space: dict = {}
    for code in blocks(str(card(dataclasses.replace(RETRIEVER, vectors=facts)))):
        exec(code, space)
    assert space["query_vector"].shape == (1, 32)
    ids = space["model"].tokenizer(
        [f"verified {doc}" for doc in space["documents"]], padding=True, return_tensors="pt"
    )
    expected = module(**ids).detach().numpy()
    np.testing.assert_allclose(space["document_vectors"], expected, atol=1e-5)
    products = space["query_vector"] @ expected.T  # not the cosine
    np.testing.assert_allclose(space["scores"], products[0], rtol=1e-4)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["raypipe"]
