"""A step's gradient does not depend on how its blocks are computed."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from processes import start
from tiny_training import (
    ROWS,
    STAGE,
    OneStep,
    batcher_of,
    check_gradients,
    column,
    fit,
    one_step,
    same,
    weights,
)
from torch.nn.parallel import DistributedDataParallel

from raypipe.losses.listwise import InfoNCE
from raypipe.losses.preference import MarginMSE
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.train.drift import copy_of_trainable, drift, spacing_share
from raypipe.train.gradients import Gradients, block_loss, block_scores, query_losses
from raypipe.train.parallel import load_whole, shard, sharded, whole_state


def gradient(data, backbone, *, budget, limit, dropout, loss, **rows) -> OneStep:
    """A step of the tiny cross-encoder, whose blocks are cut for `budget` tokens."""
    config = CrossEncoder(backbone=str(backbone), hidden_dropout=dropout, attention_dropout=dropout)
    model = config.load(backbone, 1, training=True, device="cpu")
    return one_step(model, batcher_of(data, backbone, budget, loss.uses), loss, limit, **rows)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("loss", [InfoNCE(), MarginMSE()], ids=lambda loss: loss.type)
def test_a_large_group_is_computed_in_pieces(data, tiny_backbone, loss, dropout):
    """Same batches, with dropout the same masks: only what is kept in memory differs."""
    settings = {"budget": 64, "dropout": dropout, "loss": loss}
    whole = gradient(data, tiny_backbone, limit=10_000, **settings)
    pieces = gradient(data, tiny_backbone, limit=1, **settings)
    torch.testing.assert_close(pieces.totals, whole.totals, rtol=1e-6, atol=1e-6)
    check_gradients(whole, pieces, atol=1e-6)
    assert torch.equal(pieces.random_state, whole.random_state)  # the next dropout is the same
    for piece, unsplit in zip(pieces.scores, whole.scores, strict=True):
        torch.testing.assert_close(piece, unsplit, rtol=1e-5, atol=1e-6)


def test_only_blocks_above_the_budget_are_computed_twice(data, tiny_backbone, monkeypatch):
    passes = []
    original = Gradients._without_graph

    def counted(self, block):
        passes.append(block.tokens)
        return original(self, block)

    monkeypatch.setattr(Gradients, "_without_graph", counted)
    loss = InfoNCE()
    sizes = [b.tokens for b in batcher_of(data, tiny_backbone, 1).blocks(ROWS)]
    middle = sorted(sizes)[3]
    settings = {"dropout": 0.0, "loss": loss}
    gradient(data, tiny_backbone, budget=4096, limit=4096, **settings)
    assert passes == []
    gradient(data, tiny_backbone, budget=middle, limit=middle, **settings)
    assert passes == [size for size in sizes if size > middle] and passes


def test_dropout_off_every_budget_gives_the_unsplit_gradient(data, tiny_backbone):
    settings = {"dropout": 0.0, "loss": InfoNCE()}
    whole = gradient(data, tiny_backbone, budget=100_000, limit=100_000, **settings)
    for budget in (40, 90, 200):
        cut = gradient(data, tiny_backbone, budget=budget, limit=budget, **settings)
        check_gradients(whole, cut, atol=1e-6)


def test_a_step_divides_by_all_its_queries_not_by_those_that_are_kept(data, tiny_backbone):
    settings = {"budget": 100_000, "limit": 100_000, "dropout": 0.0, "loss": InfoNCE()}
    alone = gradient(data, tiny_backbone, **settings, rows=[0, 3], queries=2)
    kept = gradient(data, tiny_backbone, **settings, rows=[0, 3], queries=8)
    assert float(kept.totals[0]) == float(alone.totals[0]) / 4
    for name, value in alone.gradients.items():
        torch.testing.assert_close(kept.gradients[name], value / 4, rtol=0, atol=0, msg=name)


def test_the_loss_of_each_query(data, tiny_backbone):
    config = CrossEncoder(backbone=str(tiny_backbone), hidden_dropout=0.0)
    model = config.load(tiny_backbone, 1, training=True, device="cpu")
    (block,) = batcher_of(data, tiny_backbone, 100_000).blocks(ROWS)
    scores = block_scores(model, block, "fp32", torch.device("cpu"))
    losses = query_losses(InfoNCE(), scores, block)
    mean = block_loss(model, block, InfoNCE(), "fp32", torch.device("cpu"))
    assert len(losses) == 6 and len(set(losses)) == 6
    assert np.mean(losses) == pytest.approx(float(mean), rel=1e-6)


def test_fp16_scales_and_leaves_overflows_out(data, tiny_backbone, monkeypatch):
    """The first scale is 65536; tiny models bear it, so one is made that does not."""
    outcome, _, _ = fit(data, tiny_backbone, STAGE, precision="fp16")
    full, _, _ = fit(data, tiny_backbone, STAGE, precision="fp32")
    np.testing.assert_allclose(column(outcome, "loss"), column(full, "loss"), rtol=0.02)
    real = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *a, **k: real(*a, init_scale=1e38, **k))
    outcome, model, _ = fit(data, tiny_backbone, STAGE, precision="fp16")
    overflows = column(outcome, "overflow")
    assert 0 < len(overflows) <= 8 and len(column(outcome, "grad_norm")) == 8 - len(overflows)
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("restored", [False, True])
def test_a_worker_without_groups_takes_part_in_fp16(data, tiny_backbone, monkeypatch, restored):
    """Its first step after a start or a restart may be one of which a filter left it nothing."""
    monkeypatch.setattr("raypipe.train.gradients.rank_and_world", lambda: (1, 2))
    model = CrossEncoder(backbone=str(tiny_backbone)).load(
        tiny_backbone, 1, training=True, device="cpu"
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    if restored:
        scaler.load_state_dict({**scaler.state_dict(), "scale": 1024.0})
    spare = next(batcher_of(data, tiny_backbone, 4096).blocks([0]))
    totals = Gradients(model, InfoNCE(), "fp16", 4096, scaler).add(
        [], 6, lambda block, scores: None, spare
    )
    assert totals.tolist() == [0.0, 0.0, 0.0]
    scaler.unscale_(optimizer)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) > 30 and not any(grad.any() for grad in gradients)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == (1024.0 if restored else 65536.0)


# --- weights spread over two processes -----------------------------------------------------------


def two_workers(rank: int, folder: str, backbone: str, data: str) -> None:
    """DDP, FSDP2, and FSDP2 with a break, on unequal work: one of two processes."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    results, saved, begun = {}, {}, {}
    stage = STAGE.replace(queries_per_step=5, steps=6, checkpoint_every=1)
    plain: list[torch.nn.Module] = []

    def validate(bare):
        if not sharded(bare):
            return {"nDCG@10": float(sum(p.detach().sum() for p in bare.parameters()))}
        load_whole(plain[0], whole_state(bare))
        return validate(plain[0])

    def wrapped(model):
        plain[:] = [copy.deepcopy(model)]
        ddp = name == "ddp"
        out = (
            DistributedDataParallel(model, broadcast_buffers=False) if ddp else shard(model, "cpu")
        )
        begun.update(start=copy_of_trainable(model), spacing=spacing_share(model, 1e-9))
        return out

    def keep(step, snapshot):
        if snapshot is not None:
            saved[step] = snapshot

    for name in ("ddp", "fsdp", "again"):
        box = [saved.get(3)]
        if name == "again":
            dist.broadcast_object_list(box, src=0)
        torch.manual_seed(rank)
        outcome, model, _ = fit(
            Path(data),
            Path(backbone),
            stage,
            budget=100,
            validate=validate,
            wrap=wrapped,
            save=keep if name == "fsdp" else None,
            resume=box[0] if name == "again" else None,
        )
        results[name] = {
            "history": outcome.history,
            "weights": whole_state(model),
            "moved": drift(begun["start"], model),
            "spacing": begun["spacing"],
        }
    parts = sum(p.to_local().numel() for p in model.parameters())
    results["share"] = parts / sum(p.numel() for p in model.parameters())
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_fsdp_trains_like_ddp(data, tiny_backbone, tmp_path):
    start(two_workers, (str(tmp_path), str(tiny_backbone), str(data)), 2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first["fsdp"]["history"] == second["fsdp"]["history"]
    assert same(first["fsdp"]["weights"], second["fsdp"]["weights"])
    assert 0.4 < first["share"] < 0.6 and first["share"] + second["share"] == pytest.approx(1)
    for ddp_row, fsdp_row in zip(first["ddp"]["history"], first["fsdp"]["history"], strict=True):
        assert ddp_row == pytest.approx(fsdp_row, rel=1e-4, abs=1e-4)
    for name, value in first["ddp"]["weights"].items():
        if not name.endswith(("classifier.bias", "key.bias")):
            other = first["fsdp"]["weights"][name]
            torch.testing.assert_close(other, value, rtol=0, atol=2e-4, msg=name)
    assert first["fsdp"]["moved"] == second["fsdp"]["moved"]  # the stage's, not a worker's part's
    assert first["fsdp"]["moved"] == pytest.approx(first["ddp"]["moved"], rel=1e-2, abs=1e-3)
    assert 0 < first["fsdp"]["spacing"] == second["fsdp"]["spacing"] == first["ddp"]["spacing"] < 1
    assert first["again"]["history"] == first["fsdp"]["history"]
    assert same(first["again"]["weights"], first["fsdp"]["weights"])


def test_weights_of_another_model_are_refused(tiny_backbone):
    config = CrossEncoder(backbone=str(tiny_backbone))
    model = config.load(tiny_backbone, 1, training=False, device="cpu")
    state = weights(model)
    state["classifier.weight"] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"classifier\.weight do not fit"):
        load_whole(model, state)
