"""The loss on groups that nobody trains on: that of training, whatever the cut and the workers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import start
from tiny_encoder import batcher_of, fits, loaded
from tiny_training import STAGE, TRAINING, write_data
from tiny_training import batcher_of as pairs_of

from raypipe.losses.base import Loss
from raypipe.losses.combination import Term, WeightedSum, over_group_and_step
from raypipe.losses.listwise import KL, InfoNCE
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.train.gradients import block_outputs, loss_of
from raypipe.train.objective import Objective
from raypipe.train.score_matrix import score_matrix
from raypipe.train.step_terms import step_losses
from raypipe.train.validation_loss import ValidationLoss, steps_of

IN_BATCH = InfoNCE(over="step", temperature=0.5)
LOSSES: dict[str, Loss] = {
    "group": KL(),
    "step": IN_BATCH,
    "both": WeightedSum(
        terms={"all": Term(loss=IN_BATCH, weight=0.3), "own": Term(loss=KL(temperature=0.2))}
    ),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory, beir_folder, tiny_backbone) -> Path:
    return write_data(tmp_path_factory.mktemp("groups"), beir_folder, tiny_backbone)


def value_of(data, backbone, loss: Loss, budget: int, dropout: float = 0.0) -> float:
    batcher = batcher_of(Path(data), Path(backbone), budget, fits(loss))
    stage = STAGE.replace(loss=loss, queries_per_step=8)
    return ValidationLoss(batcher, stage, "fp32")(loaded(Path(backbone), dropout))


def by_hand(data: Path, backbone: Path, loss: Loss) -> float:
    """Each step in one block, in one pass."""
    group_loss, terms = over_group_and_step(loss)
    batcher = batcher_of(data, backbone, 100_000, fits(loss))
    model, total = loaded(backbone).eval(), 0.0
    for rows in (range(0, 9), range(9, 18), range(18, 27), range(27, 36)):
        (block,) = batcher.blocks(list(rows))
        with torch.no_grad():
            vectors = block_outputs(model, block, "fp32", torch.device("cpu"))
            if terms:
                total += float(step_losses(terms, [block], [vectors]).all_Q.sum())
            if group_loss is not None:
                total += 9 * float(loss_of(group_loss, score_matrix(vectors, block), block))
    return total / len(TRAINING)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_it_is_the_mean_of_what_training_minimises(data, tiny_backbone, loss):
    expected = by_hand(data, tiny_backbone, loss)
    for budget in (100_000, 300, 40):
        assert value_of(data, tiny_backbone, loss, budget) == pytest.approx(expected, rel=1e-5)
    assert value_of(data, tiny_backbone, loss, 300, dropout=0.5) == pytest.approx(expected, 1e-5)


def one_of_two(rank: int, folder: str, backbone: str, data: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    values = [value_of(data, backbone, loss, 40 + 100 * rank) for loss in LOSSES.values()]
    Path(folder, str(rank)).write_text(repr(values))
    dist.destroy_process_group()


def test_two_workers_have_the_loss_of_one(data, tiny_backbone, tmp_path):
    start(one_of_two, (str(tmp_path), str(tiny_backbone), str(data)), 2)
    one, two = (eval((tmp_path / str(rank)).read_text()) for rank in (0, 1))
    assert one == two
    alone = [value_of(data, tiny_backbone, loss, 300) for loss in LOSSES.values()]
    assert one == pytest.approx(alone, rel=1e-5)


class TwiceTheLoss(Objective):
    """Reads the whole block, with a graph."""

    type: str = "twice"

    def __call__(self, model, block, loss):
        value = model.read(block).loss(loss)
        torch.autograd.grad(value, list(model.module.parameters())[-1], retain_graph=True)
        return 2 * value, {}


def test_cross_encoders_and_objectives_of_the_user(data, tiny_backbone):
    config = CrossEncoder(backbone=str(tiny_backbone), hidden_dropout=0.3)
    model = config.load(tiny_backbone, 1, training=True, device="cpu")
    values = {
        (name, budget): ValidationLoss(
            pairs_of(data, tiny_backbone, budget),
            STAGE.replace(objective=objective),
            "fp32",
        )(model)
        for name, objective in (("loss", None), ("twice", TwiceTheLoss()))
        for budget in (10_000, 100)
    }
    assert values["loss", 100] == pytest.approx(values["loss", 10_000], rel=1e-5)
    assert values["twice", 100] == pytest.approx(2 * values["loss", 100], rel=1e-5)
    assert model.training and all(p.grad is None for p in model.parameters())


def test_a_loss_that_is_not_finite_ends_the_training(data, tiny_backbone):
    model = loaded(tiny_backbone)
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    batcher = batcher_of(data, tiny_backbone, 300, "teacher")
    with pytest.raises(FloatingPointError, match="validation loss is nan: lower lr"):
        ValidationLoss(batcher, STAGE.replace(loss=KL()), "fp32")(model)


@pytest.mark.parametrize(("rows", "sizes"), [(36, [9] * 4), (7, [7]), (15, [15]), (16, [8, 8])])
def test_no_step_is_a_small_rest(rows, sizes):
    steps = steps_of(list(range(rows)), 8)
    assert [len(step) for step in steps] == sizes
    assert [row for step in steps for row in step] == list(range(rows))
