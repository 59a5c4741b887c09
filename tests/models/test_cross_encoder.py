"""Cross-encoders: seeded heads, float32 scores, checkpoints that other libraries open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from raypipe.config import ConfigError
from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer
from raypipe.inference.tokens import load_tokenizer
from raypipe.inference.truncation import LongestFirst
from raypipe.models.cross_encoder import CrossEncoder, save

LENGTH = 24
"""Shorter than the longest pairs below, so that both sides are cut."""


def load(folder: Path, seed: int = 1, *, training: bool = False, **fields):
    config = CrossEncoder(backbone=str(folder), **fields)
    return config.load(folder, seed, training=training, device="cpu")


def spread(model: torch.nn.Module) -> None:
    """Larger weights: as drawn, a small model gives all pairs nearly one score."""
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 2:
                value.mul_(6)


@pytest.fixture(scope="module")
def pairs(beir_folder) -> list[tuple[str, str]]:
    """Short pairs, long documents, long queries, both long."""
    docs = [json.loads(line)["text"] for line in (beir_folder / "corpus.jsonl").open()]
    queries = [json.loads(line)["text"] for line in (beir_folder / "queries.jsonl").open()]
    short = list(zip(queries[:6], docs[:6], strict=True))
    long = " ".join(docs[6:10])
    return [*short, (queries[0], long), (long, docs[0]), (long, " ".join(docs[10:14]))]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_backbone) -> Path:
    """A saved model with scores far apart."""
    folder = tmp_path_factory.mktemp("saved") / "cross-encoder"
    model = load(tiny_backbone)
    spread(model)
    save(model, folder, tiny_backbone, LENGTH)
    return folder


def columns(pairs: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [query for query, _ in pairs], [doc for _, doc in pairs]


def our_scores(folder: Path, pairs: list[tuple[str, str]], precision: str = "fp32", **fields):
    tokenizer = load_tokenizer(folder)
    score = PairScorer(
        load(folder, seed=99, **fields),
        Template.of(tokenizer),
        LongestFirst(max_length=LENGTH),
        128,
        precision,
        "cpu",
    )
    sides = [tokenizer(side, add_special_tokens=False)["input_ids"] for side in columns(pairs)]
    return score([(np.array(q), np.array(d)) for q, d in zip(*sides, strict=True)])


def test_the_head_depends_on_the_seed_alone(tiny_backbone):
    torch.manual_seed(5)
    first = load(tiny_backbone, 1).classifier.weight
    torch.manual_seed(6)
    before = torch.get_rng_state()
    again = load(tiny_backbone, 1).classifier.weight
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, load(tiny_backbone, 2).classifier.weight)


@pytest.mark.parametrize("layers", [3, 24, 1000])
def test_more_layers_than_there_are_cannot_be_kept(tiny_backbone, layers):
    """The whole model would train under the name of a deeper one."""
    model = CrossEncoder(backbone=str(tiny_backbone), keep_layers=layers)
    expected = f"keep_layers={layers} is more than its 2 layers; set at most 2, or leave"
    with pytest.raises(ConfigError, match=expected):
        model.check()
    with pytest.raises(ConfigError, match=expected):
        load(tiny_backbone, keep_layers=layers)
    CrossEncoder(backbone=str(tiny_backbone), keep_layers=2).check()


def test_a_trained_head_is_not_drawn_again(checkpoint):
    one, two = (load(checkpoint, seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_keep_layers(tiny_backbone, tmp_path):
    whole, first = load(tiny_backbone), load(tiny_backbone, keep_layers=1)
    assert len(whole.bert.encoder.layer) == 2 and len(first.bert.encoder.layer) == 1
    kept = {k: v for k, v in first.state_dict().items() if k.startswith("bert.encoder.layer.0.")}
    assert kept and all(torch.equal(v, whole.state_dict()[k]) for k, v in kept.items())
    save(first, tmp_path / "saved", tiny_backbone, LENGTH)
    assert len(load(tmp_path / "saved", keep_layers=1).bert.encoder.layer) == 1
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["num_hidden_layers"] == 1


@pytest.mark.parametrize(
    ("fields", "hidden", "attention"),
    [
        ({}, 0.1, 0.0),
        ({"attention_dropout": 0.2}, 0.1, 0.2),
        ({"hidden_dropout": 0.0}, 0.0, 0.0),
        ({"hidden_dropout": 0.3}, 0.3, 0.0),
    ],
)
def test_dropout_fields(tiny_backbone, fields, hidden, attention):
    model = load(tiny_backbone, training=True, **fields)
    assert model.training
    layer = model.bert.encoder.layer[0]
    assert layer.output.dropout.p == model.bert.embeddings.dropout.p == model.dropout.p == hidden
    assert model.config.attention_probs_dropout_prob == attention
    ids = torch.arange(5, 13)[None]
    twice = [model(input_ids=ids).logits.item() for _ in range(2)]
    assert (twice[0] == twice[1]) == (hidden == attention == 0)
    published = json.loads((tiny_backbone / "config.json").read_text())
    encoder = CrossEncoder(backbone="x", **fields)
    assert encoder.has_dropout(published) == (twice[0] != twice[1])


@pytest.mark.parametrize(
    ("published", "fields", "expected"),
    [
        ({"model_type": "bert"}, {}, True),  # the family's default is .1
        ({"model_type": "bert", "hidden_dropout_prob": 0.0}, {}, False),
        ({"model_type": "bert", "hidden_dropout_prob": 0.0, "classifier_dropout": 0.1}, {}, True),
        ({"model_type": "bert"}, {"hidden_dropout": 0.0}, False),
        ({"model_type": "bert"}, {"hidden_dropout": 0.0, "attention_dropout": 0.1}, True),
        ({"model_type": "modernbert"}, {}, False),
        ({"model_type": "modernbert", "mlp_dropout": 0.1}, {}, True),
        ({"model_type": "modernbert"}, {"hidden_dropout": 0.1}, True),
        ({"model_type": "electra"}, {"hidden_dropout": 0.0}, False),  # not of its summary head
        ({"model_type": "distilbert"}, {"hidden_dropout": 0.0}, False),
        ({"model_type": "albert"}, {"hidden_dropout": 0.0}, True),  # classifier_dropout_prob
        ({"model_type": "unheard"}, {"hidden_dropout": 0.0}, True),  # `check` says that it is not
    ],
)
def test_where_dropout_comes_from(published, fields, expected):
    assert CrossEncoder(backbone="x", **fields).has_dropout(published) == expected


def test_sentence_transformers_gives_the_same_scores(checkpoint, pairs):
    from sentence_transformers import CrossEncoder as TheirCrossEncoder

    theirs = TheirCrossEncoder(str(checkpoint), device="cpu")
    ours = our_scores(checkpoint, pairs)
    assert np.ptp(ours) > 0.01
    np.testing.assert_allclose(ours, theirs.predict(pairs), rtol=0, atol=1e-5)
    shutil.copytree(checkpoint, checkpoint.with_name("longer"))
    settings = checkpoint.with_name("longer") / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "model_max_length": 128}))
    uncut = TheirCrossEncoder(str(checkpoint.with_name("longer")), device="cpu").predict(pairs)
    assert np.abs(ours - uncut)[-3:].min() > 1e-4  # the long pairs were cut indeed


def test_transformers_gives_the_same_scores(checkpoint, pairs):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert tokenizer.model_max_length == LENGTH
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    encoded = tokenizer(*columns(pairs), truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        theirs = model(**encoded).logits[:, 0].numpy()
    np.testing.assert_allclose(our_scores(checkpoint, pairs), theirs, rtol=0, atol=1e-5)


def test_a_checkpoint_holds_no_pickles_and_no_bi_encoder_settings(tmp_path, tiny_backbone):
    source = tmp_path / "source"
    shutil.copytree(tiny_backbone, source)
    (source / "modules.json").write_text("[]")
    (source / "sentence_bert_config.json").write_text("{}")
    (source / "1_Pooling").mkdir()
    save(load(source), tmp_path / "saved", source, LENGTH)
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_scores_are_float32_under_bf16(checkpoint, pairs):
    scores = our_scores(checkpoint, pairs, "bf16")
    rounded = torch.from_numpy(scores).bfloat16().float().numpy()
    assert (scores != rounded).sum() >= len(pairs) - 1
    np.testing.assert_allclose(scores, our_scores(checkpoint, pairs), rtol=0, atol=0.05)
