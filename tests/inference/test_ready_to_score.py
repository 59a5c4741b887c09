"""A model as it scores: bf16 weights, the head in float32, and the kernel that AMX likes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import FAMILIES, folder_of, spread

from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer, ready_to_score
from raypipe.inference.truncation import LongestFirst
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.tokenizer import load_tokenizer

PAIRS = [(np.array([7, 8, 9, 10][:q]), np.arange(6, 6 + d)) for q in (2, 4) for d in (1, 5, 9)]


def model_of(family: str, head: str = "classifier") -> torch.nn.Module:
    folder = folder_of(family)
    config = CrossEncoder(backbone=str(folder), head=head)
    model = config.load(folder, 1, training=False, device="cpu")
    spread(model)
    return model


def scores(model: torch.nn.Module, family: str, precision: str) -> np.ndarray:
    template = Template.of(load_tokenizer(folder_of(family)))
    return PairScorer(model, template, LongestFirst(max_length=24), 96, precision, "cpu")(PAIRS)


def kernels(model: torch.nn.Module) -> set[str]:
    return {m.config._attn_implementation for m in model.modules() if hasattr(m, "config")}


@pytest.mark.parametrize("amx", [True, False])
@pytest.mark.parametrize("head", ["classifier", "similarity"])
def test_in_bf16_all_weights_but_the_heads_are_bf16(monkeypatch, head, amx):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    model = ready_to_score(model_of("bert", head), "cpu", "bf16")
    kinds = {name: weight.dtype for name, weight in model.named_parameters()}
    of_head = {kinds.pop(name) for name in list(kinds) if name.startswith("classifier.")}
    assert of_head == {torch.float32} and set(kinds.values()) == {torch.bfloat16}
    inner = model.encoder if head == "similarity" else model.bert
    assert inner.config._attn_implementation == ("sdpa" if amx else "eager")


def test_in_fp32_nothing_changes(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    model = ready_to_score(model_of("bert"), "cpu", "fp32")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert "sdpa" not in kernels(model)


@pytest.mark.parametrize("amx", [True, False])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_scores_nearly_as_in_fp32(monkeypatch, family, amx):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    expected = scores(model_of(family), family, "fp32")
    found = scores(ready_to_score(model_of(family), "cpu", "bf16"), family, "bf16")
    assert found.dtype == np.float32 and len(set(found)) == len(set(expected))
    assert np.corrcoef(found, expected)[0, 1] > 0.98
    assert np.abs(found - expected).max() < 0.3 * np.ptp(expected)
