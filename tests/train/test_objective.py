"""Objectives that read the model: hidden states, terms, workers, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import start
from tiny_training import STAGE, batcher_of, column, fit, same, weights
from torch.nn.parallel import DistributedDataParallel

from raypipe.models.cross_encoder import CrossEncoder
from raypipe.train.block_model import BlockModel
from raypipe.train.gradients import block_scores
from raypipe.train.objective import Objective
from raypipe.train.settings import TrainingSettings


class StatesApart(Objective):
    """The loss, and the mean square of the last states, so that both have a gradient."""

    terms = ("ranking", "square")

    def __call__(self, model, block, loss):
        reading = model.read(block, hidden_states=True)
        ranking, square = reading.loss(loss), (reading.mean_states() ** 2).mean()
        return ranking + square, {"ranking": ranking, "square": square}


class Returns(Objective):
    """Whatever a test wants."""

    what: str

    def __call__(self, model, block, loss):
        value = model.read(block).loss(loss)
        answers = {
            "no gradient": (value.detach(), {}),
            "no scalar": (value[None], {}),
            "a number": (1.0, {}),
            "a term": (value, {"other": value}),
        }
        return answers[self.what]


def staged(objective: Objective | None, **changes) -> TrainingSettings:
    """A stage whose objective is of no package."""
    return STAGE.replace(steps=4, **changes).model_copy(update={"objective": objective})


def loaded(backbone: Path, head: str = "classifier") -> torch.nn.Module:
    config = CrossEncoder(backbone=str(backbone), head=head)
    return config.load(backbone, 1, training=False, device="cpu").eval()


@pytest.mark.parametrize("head", ["classifier", "similarity"])
def test_a_reading_has_the_scores_of_training_and_the_states_of_every_passage(
    data, tiny_backbone, head
):
    (block,) = batcher_of(data, tiny_backbone, 10_000).blocks([0, 1, 2])
    model = loaded(tiny_backbone, head)
    seen = []
    reader = BlockModel(model, "fp32", lambda block, scores: seen.append(scores))
    reading = reader.read(block, hidden_states=True)
    expected = block_scores(model, block, "fp32", torch.device("cpu"))
    assert torch.equal(reading.scores_QD, expected) and torch.equal(seen[0], expected)
    states = reading.mean_states()
    assert states.shape == (block.passages, 32) and states.requires_grad
    for positions, inputs in block.batches:
        for place, row in zip(positions, range(len(positions)), strict=True):
            length = int(inputs["attention_mask"][row].sum())
            alone = {k: torch.from_numpy(v[row : row + 1, :length]) for k, v in inputs.items()}
            layers = model(**alone, output_hidden_states=True).hidden_states
            assert len(layers) == 3
            torch.testing.assert_close(states[place], layers[-1][0].mean(0), rtol=1e-4, atol=1e-5)


def test_terms_are_logged_and_add_up(data, tiny_backbone):
    outcome, *_ = fit(data, tiny_backbone, staged(StatesApart(type="x")))
    for row in outcome.history:
        if "loss" in row:
            assert row["loss"] == pytest.approx(row["terms/ranking"] + row["terms/square"])
    assert column(outcome, "terms/square")[0] != column(outcome, "terms/square")[-1]


def test_blocks_do_not_change_the_step(data, tiny_backbone):
    """One block of all queries and blocks of one group each have one mean over the queries."""

    class Plain(Objective):
        """The loss alone: a term over passages would weigh groups by their size."""

        def __call__(self, model, block, loss):
            return model.read(block).loss(loss), {}

    whole, first, _ = fit(data, tiny_backbone, staged(Plain(type="x")), budget=10_000)
    parts, second, _ = fit(data, tiny_backbone, staged(Plain(type="x")), budget=60)
    assert column(whole, "loss") == pytest.approx(column(parts, "loss"), rel=1e-4)
    # AdamW moves a weight whose gradient is rounding by a whole rate, whichever way it points
    weights = [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (first, second)]
    apart = (weights[0] - weights[1]).abs() > 2e-4 + 1e-2 * weights[1].abs()
    assert apart.float().mean() < 0.01


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no gradient", "a scalar tensor with a gradient, found shape []"),
        ("no scalar", "a scalar tensor with a gradient, found shape [1]"),
        ("a number", "a scalar tensor with a gradient, found <class 'float'>"),
        ("a term", "expected the terms [], found ['other']"),
    ],
)
def test_what_is_no_objective_s_result_is_refused(data, tiny_backbone, what, words):
    with pytest.raises(ValueError) as caught:
        fit(data, tiny_backbone, staged(Returns(type="mine", what=what)))
    assert str(caught.value).startswith("objective mine: expected") and words in str(caught.value)


def test_a_model_without_states_says_so(data, tiny_backbone):
    class Bare(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, output_hidden_states=False, **inputs):
            return self.model(**inputs)

    (block,) = batcher_of(data, tiny_backbone, 10_000).blocks([0])
    reader = BlockModel(Bare(loaded(tiny_backbone)), "fp32")
    with pytest.raises(ValueError, match="expected hidden states, Bare gives none"):
        reader.read(block, hidden_states=True)


def two_workers(rank: int, folder: str, backbone: str, data: str) -> None:
    """One of two processes; in the steps of three queries one worker has one query."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    outcome, model, _ = fit(
        Path(data),
        Path(backbone),
        staged(StatesApart(type="x"), queries_per_step=3),
        budget=60,  # a block for every group
        wrap=lambda model: DistributedDataParallel(model, broadcast_buffers=False),
    )
    torch.save({"history": outcome.history, "weights": weights(model)}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_workers_take_the_steps_of_one(data, tiny_backbone, tmp_path):
    start(two_workers, (str(tmp_path), str(tiny_backbone), str(data)), 2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first["history"] == second["history"] and same(first["weights"], second["weights"])
    alone, *_ = fit(
        data, tiny_backbone, staged(StatesApart(type="x"), queries_per_step=3), budget=60
    )
    for shared, row in zip(first["history"], alone.history, strict=True):
        assert shared == pytest.approx(row, rel=1e-3, abs=1e-4)
