"""A device without room for a step: half the tokens, the same result, said and remembered.

The device is this CPU; the error is raised where torch's allocator would raise it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_device import SavedTensors, SmallDevice
from tiny_training import STAGE, batcher_of, column, fit, same, weights

from raypipe.inference.out_of_memory import BudgetRecord, halving
from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer, TextEncoder, bf16_weights
from raypipe.inference.transfer import made_ahead
from raypipe.inference.truncation import LongestFirst
from raypipe.models.bi_encoder import BiEncoder
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.tokenizer import load_tokenizer
from raypipe.storage.files import home
from raypipe.train.blocks_ahead import BlocksAhead
from raypipe.train.token_budget import MOST, bytes_per_token, fitting, measured_budget


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))


def on_small_device(data, backbone, room: int, *, dropout: float = 0.0, budget: int = 4096):
    """Train with dropout as a stage does; the outcome, weights, device, what was said."""
    device, said, remembered = SmallDevice(room), [], []

    outcome, model, _ = fit(
        data,
        backbone,
        STAGE,
        budget=budget,
        dropout=dropout,
        drawn=dropout > 0,
        wrap=device.watch,
        say=said.append,
        remember=remembered.append,
    )
    return outcome, weights(model), device, said, remembered


@pytest.mark.parametrize("room", [400, 120])
def test_a_step_is_done_again_with_half_the_tokens(data, tiny_backbone, room):
    whole, _, device, said, _ = on_small_device(data, tiny_backbone, 10**9)
    assert device.refused == 0 and said == []
    outcome, _, device, said, remembered = on_small_device(data, tiny_backbone, room)
    halves = [4096 // 2**n for n in range(1, len(remembered) + 1)]
    assert device.refused == len(said) == len(remembered) and remembered == halves
    assert len(remembered) > 1 and "does not fit" in said[0] and "2,048 tokens" in said[0]
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(column(outcome, name), column(whole, name), rtol=0, atol=1e-5)
    for name in ("pairs", "tokens"):
        assert column(outcome, name) == column(whole, name)


def test_with_dropout_the_batches_and_what_is_dropped_stay(data, tiny_backbone):
    """The batches that dropout draws for are computed one at a time instead."""
    whole, before, *_ = on_small_device(data, tiny_backbone, 10**9, dropout=0.2, budget=512)
    outcome, after, device, said, remembered = on_small_device(
        data, tiny_backbone, 150, dropout=0.2, budget=512
    )
    assert device.refused == len(said) > 0 and "dropout_tokens" in said[0] and remembered == []
    np.testing.assert_allclose(column(outcome, "loss"), column(whole, "loss"), rtol=0, atol=1e-4)
    assert all(torch.allclose(after[n], before[n], rtol=0, atol=2e-3) for n in before)
    other, *_ = on_small_device(data, tiny_backbone, 10**9, dropout=0.2, budget=128)
    assert np.abs(np.subtract(column(other, "loss"), column(whole, "loss"))).max() > 1e-3


def test_what_does_not_fit_in_any_way_is_told_with_a_remedy(data, tiny_backbone):
    with pytest.raises(torch.OutOfMemoryError) as caught:
        on_small_device(data, tiny_backbone, 5)
    assert (
        "expected room for 48 tokens, found none; set gradient_checkp" in caught.value.__notes__[0]
    )
    with pytest.raises(torch.OutOfMemoryError) as caught:
        on_small_device(data, tiny_backbone, 5, dropout=0.2, budget=512)
    assert "128 tokens, found none; lower dropout_tokens" in caught.value.__notes__[0]


def test_halving_asks_no_less_than_one_text():
    asked = []

    def work(tokens: int) -> str:
        asked.append(tokens)
        if tokens > 40:
            raise torch.OutOfMemoryError("no room")
        return "done"

    assert halving(work, 300, 30, lambda tokens: None) == "done" and asked == [300, 150, 75, 37]
    with pytest.raises(torch.OutOfMemoryError):
        halving(work, 300, 50, lambda tokens: None)


# --- scoring -------------------------------------------------------------------------------------


def scorer_of(backbone: Path, device: SmallDevice, budget: int = 800) -> PairScorer:
    model = CrossEncoder(backbone="").load(backbone, 9, training=False, device="cpu")
    device.watch(model)
    cut = LongestFirst(max_length=40)
    return PairScorer(model, Template.of(load_tokenizer(backbone)), cut, budget, "fp32", "cpu")


def test_scoring_goes_on_with_half_the_tokens(tiny_backbone, capsys):
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(5, 90, 4), rng.integers(5, 90, n % 30 + 1)) for n in range(60)]
    expected = scorer_of(tiny_backbone, SmallDevice(10**9))(pairs)
    device = SmallDevice(250)
    score = scorer_of(tiny_backbone, device)
    np.testing.assert_allclose(score(pairs), expected, rtol=0, atol=1e-6)
    assert (score.budget, device.refused) == (200, 2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" tokens")[0].split()[-1] for line in lines] == ["400", "200"]
    score(pairs)
    assert device.refused == 2 and capsys.readouterr().out == ""
    record = BudgetRecord.of(score.model, "scoring in fp32", "cpu")
    assert record.read() == 200 and record.card == "cpu"


def test_encoding_goes_on_with_half_the_tokens(tiny_backbone):
    texts = [np.arange(5, 6 + n) for n in range(30)]
    vectors = {}
    for room in (10**9, 100):
        encoder = BiEncoder(backbone=str(tiny_backbone)).load(tiny_backbone, "cpu")
        device = SmallDevice(room)
        device.watch(encoder)
        template = Template.of(load_tokenizer(tiny_backbone), pair=False)
        vectors[room] = TextEncoder(encoder, template, 40, 400, "fp32", "cpu")(texts)
        assert (device.refused > 0) is (room == 100)
    np.testing.assert_allclose(vectors[100], vectors[10**9], rtol=0, atol=1e-6)


def test_records_differ_by_card_model_and_work(tiny_backbone):
    model = CrossEncoder(backbone="").load(tiny_backbone, 9, training=False, device="cpu")
    record = BudgetRecord.of(model, "training", "cpu")
    assert record.read() is None
    record.write(4096)
    assert record.read() == 4096
    (path,) = (home() / "token-budgets").glob("*")
    assert json.loads(path.read_text()) == {**vars(record), "tokens": 4096}
    others = [BudgetRecord.of(model, "scoring", "cpu"), BudgetRecord("H", record.model, "training")]
    others.append(BudgetRecord.of(bf16_weights(model), "training", "cpu"))
    assert [other.read() for other in others] == [None] * 3
    path.write_text("{")
    assert record.read() is None


def test_several_workers_end_and_remember_half(data, tiny_backbone, monkeypatch):
    """None may begin a step again while the others wait in it."""
    monkeypatch.setattr("raypipe.train.optimizer_step.rank_and_world", lambda: (0, 2))
    for dropout, halves, remedy in ((0.0, [2048], "same command"), (0.2, [], "dropout_tokens")):
        remembered: list[int] = []
        with pytest.raises(torch.OutOfMemoryError) as caught:
            fit(
                data,
                tiny_backbone,
                dropout=dropout,
                drawn=dropout > 0,
                wrap=SmallDevice(5).watch,
                remember=remembered.append,
            )
        assert remembered == halves and remedy in caught.value.__notes__[0]


# --- the budget of a card ------------------------------------------------------------------------


def test_the_budget_is_what_the_cards_memory_holds(tiny_backbone):
    model = CrossEncoder(backbone="").load(tiny_backbone, 9, training=True, device="cpu")
    state = torch.get_rng_state()
    per_token = bytes_per_token(model, 48, "fp32", SavedTensors(0))
    assert 1_000 < per_token < 100_000
    card = SavedTensors(int(per_token * 40_000))
    tokens = measured_budget(model, 48, "fp32", card, 1.0)
    assert tokens == 16_384 and card.measured == 2
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
    again = measured_budget(model, 48, "fp32", SavedTensors(10**15), 1.0)
    assert again == tokens  # remembered
    assert measured_budget(model, 48, "fp32", SavedTensors(10**15), 0.5) == MOST


def test_a_card_too_small_to_be_measured_begins_with_little(tiny_backbone):
    class Full(SavedTensors):
        def peak(self, work) -> int:
            raise torch.OutOfMemoryError("no room")

    model = CrossEncoder(backbone="").load(tiny_backbone, 9, training=True, device="cpu")
    assert measured_budget(model, 48, "fp32", Full(10**9), 1.0) == 4096


def test_a_budget_holds_one_pair_at_least():
    assert fitting(0.0, 50_000.0, 500) == 500
    assert fitting(1e18, 50_000.0, 500) == MOST


# --- host work ahead of the device ---------------------------------------------------------------


def test_blocks_made_ahead_are_those_made_now(data, tiny_backbone):
    batcher = batcher_of(data, tiny_backbone, 128)
    ahead = BlocksAhead(threads=True)
    steps = [[0, 1, 2], [3, 4, 5], [6, 7], [9, 10]]
    for number, rows in enumerate(steps):
        coming = [[3, 4, 5], [6, 7], [8], None][number]  # once it comes otherwise
        for block, now in zip(ahead.take(batcher, rows, coming), batcher.blocks(rows), strict=True):
            assert np.array_equal(block.mask_QD, now.mask_QD) and block.tokens == now.tokens
            for (chosen, inputs), (other, expected) in zip(block.batches, now.batches, strict=True):
                assert np.array_equal(chosen, other)
                assert all(np.array_equal(inputs[name], expected[name]) for name in expected)


def test_training_with_blocks_made_ahead_has_the_same_bits(data, tiny_backbone, monkeypatch):
    _, model, _ = fit(data, tiny_backbone, dropout=0.1)
    monkeypatch.setattr(
        "raypipe.train.optimizer_step.BlocksAhead", lambda threads: BlocksAhead(threads=True)
    )
    _, other, _ = fit(data, tiny_backbone, dropout=0.1)
    assert same(weights(model), weights(other))


@pytest.mark.parametrize("threads", [True, False])
def test_what_is_made_ahead_comes_in_order_and_errors_are_raised(threads):
    assert list(made_ahead(lambda n: n * n, range(50), threads=threads)) == [
        n * n for n in range(50)
    ]
    with pytest.raises(ZeroDivisionError):
        list(made_ahead(lambda n: 1 // (3 - n), range(50), threads=threads))
