"""What the estimate of a GPU's memory is worth, and what happens where it is full.

On the CPU, stand-ins count what a graph keeps and have as little room as a test wants.
"""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from random_pairs import random_backbone, random_batcher
from small_device import SavedTensors, SmallDevice

from raypipe.losses.listwise import InfoNCE
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.train.gradients import Gradients
from raypipe.train.loop import train
from raypipe.train.settings import TrainingSettings
from raypipe.train.token_budget import GpuMemory, bytes_per_token, measured_budget

GROUPS = 32
SHAPES = {
    "cuda": (256, {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12}, 1536),
    "cpu": (32, {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}, 64),
}
"""Tokens of a pair, and a model: MiniLM-L6's shape on a GPU."""


@pytest.fixture
def longest(device) -> int:
    return SHAPES[device][0]


@pytest.fixture
def backbone(tmp_path, tiny_backbone, device) -> Path:
    _, shape, inner = SHAPES[device]
    return random_backbone(
        tmp_path / "model", tiny_backbone, "bert", intermediate_size=inner, **shape
    )


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))


def load(backbone: Path, device: str) -> torch.nn.Module:
    config = CrossEncoder(backbone=str(backbone), hidden_dropout=0.0)
    return config.load(backbone, 1, training=True, device=device)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_steps_memory_is_what_was_estimated(tmp_path, backbone, device, longest, precision):
    model = load(backbone, device)
    meter = GpuMemory(torch.device("cuda", 0)) if device == "cuda" else SavedTensors(0)
    estimated = bytes_per_token(model, longest, precision, meter)
    tokens = GROUPS * 8 * longest
    batcher = random_batcher(tmp_path, backbone, longest, GROUPS, tokens)
    (block,) = batcher.blocks([*range(GROUPS)])
    assert block.tokens == tokens and len(block.batches) == 4
    scaler = torch.amp.GradScaler(device, enabled=False)
    gradients = Gradients(model, InfoNCE(), precision, tokens, scaler)
    peak = meter.peak(lambda: gradients.add([block], GROUPS, lambda *_: None, block))
    assert 0.5 * estimated * tokens < peak < 1.2 * estimated * tokens


def test_the_budget_of_this_card_fits_it(backbone, device, longest):
    meter = GpuMemory(torch.device("cuda", 0)) if device == "cuda" else SavedTensors(10**8)
    model = load(backbone, device)
    tokens = measured_budget(model, longest, "bf16", meter, 1.0)
    assert longest <= tokens <= 131_072 and tokens & (tokens - 1) == 0
    assert tokens * bytes_per_token(model, longest, "bf16", meter) < meter.free()


def test_a_full_device_trains_with_fewer_tokens_to_the_same_losses(
    tmp_path, backbone, device, longest
):
    tokens = GROUPS * 8 * longest
    batcher = random_batcher(tmp_path, backbone, longest, GROUPS, tokens)
    stage = TrainingSettings(
        loss=InfoNCE(), lr=1e-4, queries_per_step=GROUPS, steps=3, validations=1
    )

    def losses(*, full: bool) -> tuple[list[float], list[str], list[int]]:
        model, said, remembered = load(backbone, device), [], []
        if full and device == "cpu":
            SmallDevice(tokens // 3).watch(model)
        outcome = train(
            model,
            batcher,
            stage,
            GROUPS,
            seed=1,
            precision="fp32",
            selection="value",
            validate=lambda model: {"value": 0.0},
            report=lambda report: None,
            say=said.append,
            remember=remembered.append,
        )
        return [row["loss"] for row in outcome.history if "loss" in row], said, remembered

    if device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    expected, said, _ = losses(full=False)
    assert said == []
    if device == "cuda":
        peak, total = torch.cuda.max_memory_allocated(), torch.cuda.get_device_properties(0)
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.55 * peak / total.total_memory)
    try:
        found, said, remembered = losses(full=True)
    finally:
        if device == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert remembered[0] == tokens // 2 and len(said) == len(remembered) >= 1
    assert "does not fit into the device's memory and is done again" in said[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
