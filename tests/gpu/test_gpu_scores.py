"""Scores and vectors of a GPU are those of a CPU, in every precision and attention kernel."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from random_pairs import random_backbone, random_pairs
from torch.nn.attention import SDPBackend, sdpa_kernel

from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer, TextEncoder, bf16_weights, ready_to_score
from raypipe.inference.truncation import LongestFirst
from raypipe.models.bi_encoder import BiEncoder
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.tokenizer import load_tokenizer

LONGEST = 64
MODERN = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "local_attention": 16,
}
KERNELS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


@pytest.fixture(scope="module")
def backbones(tmp_path_factory, tiny_backbone) -> dict[str, Path]:
    modern = tmp_path_factory.mktemp("models") / "tiny-modern"
    return {
        "bert": tiny_backbone,
        "modernbert": random_backbone(modern, tiny_backbone, "modernbert", **MODERN),
    }


def model_on(backbone: Path, device: str, head: str = "classifier") -> torch.nn.Module:
    """With matrices six times as large, so that scores lie far apart."""
    config = CrossEncoder(backbone=str(backbone), head=head)
    model = config.load(backbone, 1, training=False, device=device)
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 2:
                value.mul_(6)
    return model


def scores(backbone: Path, model: torch.nn.Module, device: str, precision: str = "fp32"):
    tokenizer = load_tokenizer(backbone)
    cut = LongestFirst(max_length=LONGEST)
    score = PairScorer(model, Template.of(tokenizer), cut, 1024, precision, device)
    return score(random_pairs(len(tokenizer), 120, LONGEST))


families = pytest.mark.parametrize("family", ["bert", "modernbert"])
heads = pytest.mark.parametrize("head", ["classifier", "similarity"])


@families
@heads
def test_scores_in_fp32_are_those_of_the_cpu(backbones, device, family, head):
    backbone = backbones[family]
    expected = scores(backbone, model_on(backbone, "cpu", head), "cpu")
    found = scores(backbone, model_on(backbone, device, head), device)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(np.ptp(expected), 1))


@families
@heads
def test_scores_in_bf16_are_near_those_in_fp32(backbones, device, family, head):
    """Of autocast, and of weights in bf16, as scoring on a GPU has them."""
    backbone = backbones[family]
    expected = scores(backbone, model_on(backbone, "cpu", head), "cpu")
    for model in (
        model_on(backbone, device, head),
        bf16_weights(model_on(backbone, device, head)),
    ):
        found = scores(backbone, model, device, "bf16")
        assert found.dtype == np.float32 and len(set(found)) > len(found) // 2
        assert np.corrcoef(found, expected)[0, 1] > 0.98
        assert np.abs(found - expected).max() < 0.3 * np.ptp(expected)


def test_bf16_scores_with_bf16_weights_and_a_head_in_fp32(backbones, device):
    model = ready_to_score(model_on(backbones["bert"], device), device, "bf16")
    kinds = {name: weight.dtype for name, weight in model.named_parameters()}
    assert kinds.pop("classifier.weight") == kinds.pop("classifier.bias") == torch.float32
    assert set(kinds.values()) == {torch.bfloat16}
    exact = ready_to_score(model_on(backbones["bert"], device), device, "fp32")
    assert {weight.dtype for weight in exact.parameters()} == {torch.float32}


@pytest.mark.parametrize("kernel", ["eager", *KERNELS])
@families
def test_attention_kernels_agree(backbones, device, family, kernel):
    """In bf16, because flash and cudnn have no other; the math kernel of fp32 is the measure."""
    backbone = backbones[family]
    model = model_on(backbone, device)
    model.set_attn_implementation("sdpa")
    with sdpa_kernel(SDPBackend.MATH):
        expected = scores(backbone, model, device)
    precision = "bf16" if kernel in ("flash", "cudnn") else "fp32"
    chosen = contextlib.nullcontext() if kernel == "eager" else sdpa_kernel(KERNELS[kernel])
    model.set_attn_implementation("eager" if kernel == "eager" else "sdpa")
    try:
        with chosen:
            found = scores(backbone, model, device, precision)
    except RuntimeError as error:
        if not any(text in str(error) for text in ("No available kernel", "No viable backend")):
            raise
        pytest.skip(f"{device} has no {kernel} kernel for a padded batch")
    if precision == "bf16":
        assert np.corrcoef(found, expected)[0, 1] > 0.98
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5 * max(np.ptp(expected), 1))


def test_vectors_are_those_of_the_cpu(backbones, device):
    found = {}
    for place in ("cpu", device):
        encoder = BiEncoder(backbone=str(backbones["bert"])).load(backbones["bert"], place)
        template = Template.of(load_tokenizer(backbones["bert"]), pair=False)
        encode = TextEncoder(encoder, template, LONGEST, 512, "fp32", place)
        found[place] = encode([np.arange(5, 6 + n) for n in range(40)])
    np.testing.assert_allclose(found[device], found["cpu"], rtol=0, atol=2e-5)
