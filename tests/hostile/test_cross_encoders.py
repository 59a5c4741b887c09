"""Cross-encoders as strangers' folders have them: transformers' scores, or a refusal in words.

Every row of the tables is an input that no other test tries.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from edited_models import Change, edited, refused, weights
from families import DOC_TEXTS, QUERY_TEXTS, folder_of, spread

from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer
from raypipe.inference.truncation import LongestFirst
from raypipe.models.bi_encoder import BiEncoder
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.tokenizer import load_tokenizer
from raypipe.teachers.cross_encoder import CrossEncoderTeacher


@pytest.fixture
def scorer(tmp_path) -> Path:
    """A trained cross-encoder of one label."""
    folder = tmp_path / "model"
    config = transformers.AutoConfig.from_pretrained(folder_of("bert"), num_labels=1)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
    spread(model)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(folder_of("bert")).save_pretrained(folder)
    return folder


PAIRS = list(zip(QUERY_TEXTS, DOC_TEXTS[3:], strict=False))


def scores(folder: Path) -> np.ndarray:
    CrossEncoder(backbone=str(folder)).check({"truncation.max_length": 100})
    model = CrossEncoder(backbone=str(folder)).load(folder, 1, training=False, device="cpu")
    tokenizer = load_tokenizer(folder)
    plain = functools.partial(tokenizer, add_special_tokens=False)
    pairs = [tuple(np.array(plain(text)["input_ids"]) for text in pair) for pair in PAIRS]
    cut = LongestFirst(max_length=100)
    return PairScorer(model, Template.of(tokenizer), cut, 10_000, "fp32", "cpu")(pairs)


def reference(folder: Path) -> np.ndarray:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, num_labels=1
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        each = [model(**tokenizer(*pair, return_tensors="pt")).logits.item() for pair in PAIRS]
    return np.array(each)


def without(name: str) -> Change:
    return edited("config.json", **{name: None})


SCORED: dict[str, Change] = {
    "as it was saved": lambda folder: None,
    "weights in float8": weights(
        lambda name, value: value.to(torch.float8_e4m3fn) if value.ndim == 2 else value
    ),
    "weights in float64": weights(lambda name, value: value.double()),
    "dtype in config.json that the weights have not": edited("config.json", dtype="float64"),
    "another activation between": edited("config.json", hidden_act="gelu_new"),
    "a problem type of many labels": edited(
        "config.json", problem_type="multi_label_classification"
    ),
    "no architecture named": without("architectures"),
    "an empty list of architectures": edited("config.json", architectures=[]),
    "the architecture without a head named": edited("config.json", architectures=["BertModel"]),
    "special tokens of the config that nobody asked for": edited("config.json", sep_token_id=7),
    "a template for chats": lambda f: (f / "chat_template.jinja").write_text("{{ messages }}"),
    "weights of an optimizer beside": lambda f: (f / "optimizer.pt").write_bytes(b"\x80\x04"),
    "twice the attention heads": edited("config.json", num_attention_heads=4),
}


@pytest.mark.parametrize("case", SCORED)
def test_scores(case, scorer):
    SCORED[case](scorer)
    np.testing.assert_allclose(scores(scorer), reference(scorer), rtol=0, atol=1e-5)


def integers(folder: Path) -> None:
    weights(lambda name, v: (v * 9).to(torch.int8) if v.ndim == 2 else v)(folder)


def heads(**fields: Any) -> Change:
    return edited("config.json", **fields)


BOTH: dict[str, tuple[Change, str]] = {
    "weights in 8-bit integers": (integers, "weights in floating point, found I8 in "),
    "bitsandbytes": (
        heads(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        "found quantised ones (bitsandbytes",
    ),
    "a quantisation that nobody knows": (
        heads(quantization_config={"quant_method": "nobody"}), "found quantised ones (nobody",
    ),
    "one layer fewer in config.json": (heads(num_hidden_layers=1), "the file has layers that conf"),
    "one layer more in config.json": (heads(num_hidden_layers=3), "16 are missing and would be ra"),
    "twice the width in config.json": (heads(hidden_size=64), "weights of other shapes: bert.emb"),
    "fewer tokens in config.json": (heads(vocab_size=50), "embeddings.weight is 72x32, not 50"),
    "more tokens in config.json": (heads(vocab_size=5000), "weight is 72x32, not 5000x32"),
    "more positions in config.json": (
        heads(max_position_embeddings=512), "position_embeddings.weight is 130x32, not 512x32",
    ),
    "positions that are null": (
        lambda f: (f / "config.json").write_text(
            (f / "config.json").read_text().replace(
                '"max_position_embeddings": 130', '"max_position_embeddings": null')),
        "'max_position_embeddings' expected int, got NoneType",
    ),
    "heads that do not part the width": (
        heads(num_attention_heads=3), "transformers cannot build the model of its config.json",
    ),
    "an activation that nobody knows": (heads(hidden_act="swoosh"), "cannot build the model of it"),
    "another family's name": (heads(model_type="roberta"), "are missing and would be random"),
    "no family's name": (without("model_type"), "Should have a `model_type` key"),
    "a decoder of the family": (heads(is_decoder=True), "found BertForSequenceClassification (mod"),
    "names of two labels over one": (
        heads(id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1}),
        "BertForSequenceClassification with 2 labels",
    ),
    "names of no label": (heads(id2label={}, label2id={}), "with 2 labels"),
}  # fmt: skip


@pytest.mark.parametrize("case", BOTH)
def test_cross_encoders_refused(case, scorer):
    """By the check of a student and that of a teacher, before any work."""
    change, message = BOTH[case]
    cut = LongestFirst(max_length=100)
    student, teacher = (
        CrossEncoder(backbone=str(scorer)),
        CrossEncoderTeacher(backbone=str(scorer), truncation=cut),
    )
    student.check()
    teacher.check()
    change(scorer)
    for check in (student.check, teacher.check):
        said = refused(check)
        assert message in said and str(scorer) in said


def test_a_student_may_leave_layers_out(scorer):
    """The check of layers is of config.json, not of what the recipe keeps."""
    CrossEncoder(backbone=str(scorer), keep_layers=1).check()
    edited("config.json", num_hidden_layers=1)(scorer)
    CrossEncoder(backbone=str(scorer), keep_layers=1).check()
    assert "set model.keep_layers" in refused(CrossEncoder(backbone=str(scorer)).check)


@pytest.mark.parametrize("family", ["roberta", "electra", "deberta_v3", "modernbert", "minilm"])
def test_the_published_form_of_every_family_fits_its_weights(family, tmp_path):
    """And not another one's: a check that refused too much would be as bad."""
    CrossEncoder(backbone=str(folder_of(family))).check()
    BiEncoder(backbone=str(folder_of(family)), max_length=60).check()
    folder = Path(shutil.copytree(folder_of(family), tmp_path / "model"))
    edited("config.json", num_hidden_layers=9)(folder)
    message = refused(CrossEncoder(backbone=str(folder)).check)
    assert "would be random" in message or "(9) must be equal to the number of" in message


def test_a_model_in_shards_fits(scorer):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(scorer)
    (scorer / "model.safetensors").unlink()
    model.save_pretrained(scorer, max_shard_size="20KB")
    assert len(list(scorer.glob("model-*.safetensors"))) > 1
    np.testing.assert_allclose(scores(scorer), reference(scorer), rtol=0, atol=1e-5)
    edited("config.json", hidden_size=64)(scorer)
    assert "weights of other shapes" in refused(CrossEncoder(backbone=str(scorer)).check)
