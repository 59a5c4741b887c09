"""Vectors that are computed twice against the same parts in the same order with the graph kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from processes import start
from tiny_encoder import ROWS, batcher_of, fits, loaded
from tiny_training import write_data
from torch.nn.parallel import DistributedDataParallel

from raypipe.inference.transfer import to_tensors
from raypipe.losses.base import Loss
from raypipe.losses.combination import Term, WeightedSum, over_group_and_step
from raypipe.losses.listwise import KL, InfoNCE
from raypipe.train.gradients import Gradients, loss_of
from raypipe.train.score_matrix import score_matrix
from raypipe.train.step_terms import step_losses

LOSSES = {
    "infonce": InfoNCE(over="step", temperature=0.5),
    "infonce over the step, kl over the group": WeightedSum(
        terms={
            "all": Term(loss=InfoNCE(over="step", temperature=0.5), weight=0.3),
            "own": Term(loss=KL()),
        }
    ),
    "infonce over the group, kl over the step": WeightedSum(
        terms={"own": Term(loss=InfoNCE()), "all": Term(loss=KL(over="step"), weight=0.5)}
    ),
}
BUDGETS = {"one block": 300, "two blocks": 160, "a block per group": 40}


@pytest.fixture(scope="module")
def data(tmp_path_factory, beir_folder, tiny_backbone) -> Path:
    return write_data(tmp_path_factory.mktemp("groups"), beir_folder, tiny_backbone)


def blocks_of(data: Path, backbone: Path, loss: Loss, budget: int, rows=ROWS) -> list:
    return list(batcher_of(data, backbone, budget, fits(loss)).blocks(rows))


def begun(backbone: Path, dropout: float, seed: int = 7) -> torch.nn.Module:
    model = loaded(backbone, dropout)
    torch.manual_seed(seed)
    return model


def cached(model, blocks, loss: Loss, limit: int = 1):
    """(loss, gradients, random state) as training has them; `limit` tokens fit into memory."""
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    totals = Gradients(model, loss, "fp32", limit, scaler).add(
        blocks, len(ROWS), lambda block, scores: None, blocks[0]
    )
    return float(totals[0]), gradients_of(model), torch.get_rng_state()


def kept(model, blocks, loss: Loss):
    """The same from one graph of all parts, in the order in which training reads them."""
    group_loss, terms = over_group_and_step(loss)
    vectors = []
    for block in blocks:
        parts = [model(**to_tensors(inputs, "cpu")) for _, inputs in block.batches]
        order = np.concatenate([chosen for chosen, _ in block.batches])
        vectors.append(torch.cat(parts)[torch.from_numpy(np.argsort(order))])
    losses = step_losses(terms, blocks, vectors)
    total, own = losses.all_Q.sum(), losses.own_Q.sum().detach()
    for block, found in zip(blocks, vectors, strict=True):
        if group_loss is not None:
            value = loss_of(group_loss, score_matrix(found, block), block) * block.queries
            total, own = total + value, own + value.detach()
    (total / len(ROWS)).backward()
    return float(own) / len(ROWS), gradients_of(model), torch.get_rng_state()


def gradients_of(model) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix("module."): parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def same(found, expected) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1].keys() == expected[1].keys() and len(found[1]) > 30
    for name, value in expected[1].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_gradient_is_that_of_one_graph(data, tiny_backbone, loss, budget, dropout):
    blocks = blocks_of(data, tiny_backbone, loss, budget)
    assert len(blocks) == {300: 1, 160: 2, 40: 6}[budget]
    assert sum(len(block.batches) for block in blocks) > 3
    expected = kept(begun(tiny_backbone, dropout), blocks, loss)
    found = cached(begun(tiny_backbone, dropout), blocks, loss)
    same(found, expected)
    assert torch.equal(found[2], expected[2])  # the next step drops what it would have dropped
    fitting = cached(begun(tiny_backbone, dropout), blocks, loss, limit=100_000)
    same(fitting, expected)
    assert torch.equal(fitting[2], expected[2])
    if dropout:
        other = cached(begun(tiny_backbone, dropout, seed=8), blocks, loss)
        assert other[0] != pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_last_part_of_one_text(data, tiny_backbone, dropout):
    loss = LOSSES["infonce over the step, kl over the group"]
    cuts = (blocks_of(data, tiny_backbone, loss, budget) for budget in range(100, 500, 10))
    blocks = next(cut for cut in cuts if len(cut) > 1 and len(cut[-1].batches[-1][0]) == 1)
    assert len(blocks[-1].batches) > 1
    expected = kept(begun(tiny_backbone, dropout), blocks, loss)
    same(cached(begun(tiny_backbone, dropout), blocks, loss), expected)


def test_a_step_that_fits_is_computed_once(data, tiny_backbone):
    loss = LOSSES["infonce"]
    blocks = blocks_of(data, tiny_backbone, loss, 160)
    tokens = sum(block.tokens for block in blocks)
    batches = sum(len(block.batches) for block in blocks)
    for limit, passes in ((tokens, batches), (tokens - 1, 2 * batches)):
        model, calls = begun(tiny_backbone, 0.0), []
        model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        cached(model, blocks, loss, limit)
        assert len(calls) == passes


def both_ways(rank: int, folder: str, backbone: str, data: str) -> None:
    """One of two processes: the step with dropout, vectors computed twice, and in one graph."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    results = {}
    for name, loss in LOSSES.items():
        blocks = blocks_of(Path(data), Path(backbone), loss, 200 if rank else 90, ROWS[rank::2])
        model = begun(Path(backbone), 0.3, seed=rank)
        expected = kept(model, blocks, loss)
        for gradient in expected[1].values():
            dist.all_reduce(gradient)
        wrapped = begun(Path(backbone), 0.3, seed=rank)
        wrapped = DistributedDataParallel(wrapped, broadcast_buffers=False)
        torch.manual_seed(rank)
        limit = 1 if name == "infonce" or rank else 100_000  # one worker's share may fit alone
        results[name] = (cached(wrapped, blocks, loss, limit), expected, len(blocks))
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_with_dropout_have_the_gradient_of_their_graphs(data, tiny_backbone, tmp_path):
    start(both_ways, (str(tmp_path), str(tiny_backbone), str(data)), 2)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert [result["infonce"][2] for result in results] != [1, 1]
    for name in LOSSES:
        for result in results:
            found, expected, _ = result[name]
            same(found, expected)
            assert torch.equal(found[2], expected[2])
        (one, _, _), (two, _, _) = (result[name] for result in results)
        assert one[0] != pytest.approx(two[0])  # each has its own queries
        for name_of, gradient in one[1].items():
            assert torch.equal(two[1][name_of], gradient)
