"""Training on a GPU: the losses of a CPU, the same bits after a restart, NCCL and FSDP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from tiny_training import STAGE, column, fit, same, weights, write_data
from torch.nn.parallel import DistributedDataParallel

from raypipe.losses.preference import MarginMSE
from raypipe.stages.worker import make_deterministic
from raypipe.train.filtering import Filtering
from raypipe.train.parallel import shard, sharded, whole_state
from raypipe.train.snapshot import Snapshot

SHORT = STAGE.replace(steps=3, validations=1)
LONGER = STAGE.replace(steps=6, validate_every=3, checkpoint_every=1)
FILTER = Filtering(mode="backward_forward", warmup_queries=12, window=8, memory=32)


@pytest.fixture(scope="module")
def data(tmp_path_factory, beir_folder, tiny_backbone) -> Path:
    return write_data(tmp_path_factory.mktemp("groups"), beir_folder, tiny_backbone)


@pytest.mark.parametrize("stage", [STAGE, STAGE.replace(loss=MarginMSE())], ids=["labels", "kd"])
def test_losses_in_fp32_are_those_of_the_cpu(data, tiny_backbone, device, stage):
    expected, *_ = fit(data, tiny_backbone, stage)
    outcome, model, _ = fit(data, tiny_backbone, stage, device=device)
    assert next(model.parameters()).device.type == device
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(column(outcome, name), column(expected, name), rtol=2e-3)
    for name in ("pairs", "tokens"):
        assert column(outcome, name) == column(expected, name)


def test_losses_in_bf16_fall_as_in_fp32(data, tiny_backbone, device):
    stage = STAGE.replace(steps=18)
    exact, *_ = fit(data, tiny_backbone, stage)
    low, *_ = fit(data, tiny_backbone, stage, device=device, precision="bf16")
    first, last = np.mean(column(low, "loss")[:3]), np.mean(column(low, "loss")[-3:])
    assert last < first
    early = slice(0, 8)  # later each rounding has grown
    np.testing.assert_allclose(
        column(low, "loss")[early], column(exact, "loss")[early], rtol=0.05, atol=0.02
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("budget", [4096, 100], ids=["whole", "cached"])
def test_a_resumed_stage_has_the_same_bits(data, tiny_backbone, device, precision, budget):
    """With dropout, whose masks a GPU draws from a generator of its own."""
    make_deterministic(True)
    try:
        common = {"device": device, "precision": precision, "dropout": 0.1, "budget": budget}
        kept: dict[int, Snapshot] = {}
        _, whole, _ = fit(data, tiny_backbone, LONGER, save=kept.__setitem__, **common)
        assert sorted(kept) == [*range(1, 6)]
        assert ("0|cuda" in kept[3].tensors["rng"]) is (device == "cuda")
        outcome, again, _ = fit(data, tiny_backbone, LONGER, resume=kept[3], seed=1, **common)
        assert outcome.resumed_from == [3] and outcome.steps == 6
        assert same(weights(whole), weights(again))
    finally:
        make_deterministic(False)


def test_the_filter_decides_the_same(data, tiny_backbone, device):
    stage = STAGE.replace(filtering=FILTER)
    expected, *_ = fit(data, tiny_backbone, stage)
    outcome, *_ = fit(data, tiny_backbone, stage, device=device)
    assert column(outcome, "kept") == column(expected, "kept")


@pytest.fixture
def alone(tmp_path, device):
    """A process group of one: NCCL on a GPU, gloo elsewhere."""
    if device == "cuda":
        torch.cuda.set_device(0)
    backend = "nccl" if device == "cuda" else "gloo"
    where = f"file://{tmp_path}/rendezvous"
    dist.init_process_group(backend, init_method=where, rank=0, world_size=1)
    yield backend
    dist.destroy_process_group()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_worker_of_a_group_trains_like_none(
    data, tiny_backbone, device, alone, strategy, precision
):
    def wrap(model):
        if strategy == "fsdp":
            return shard(model, device)
        return DistributedDataParallel(model, broadcast_buffers=False)

    common = {"device": device, "precision": precision, "budget": 128}
    plain, before, _ = fit(data, tiny_backbone, SHORT, **common)
    outcome, after, _ = fit(data, tiny_backbone, SHORT, wrap=wrap, **common)
    assert sharded(after) is (strategy == "fsdp")
    rough = 1e-4 if precision == "fp32" else 5e-2
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(column(outcome, name), column(plain, name), rtol=rough)
    if precision == "fp32":
        found, expected = (
            torch.cat([value.float().flatten() for value in state.values()])
            for state in (whole_state(after), before.state_dict())
        )
        assert (found - expected).norm() < 1e-3 * expected.norm()
