"""Schedules, validation steps, early stopping: what a stage's settings mean."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_training import STAGE, column, fit, same, weights, write_data

from raypipe.losses.listwise import InfoNCE
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.train.optim import build_optimizer, rate
from raypipe.train.schedules import Constant, Cosine, Linear
from raypipe.train.selection import Selection
from raypipe.train.settings import EarlyStopping, Freeze, TrainingSettings


@pytest.fixture(scope="module")
def data(tmp_path_factory, beir_folder, tiny_backbone) -> Path:
    return write_data(tmp_path_factory.mktemp("groups"), beir_folder, tiny_backbone)


# --- schedules -----------------------------------------------------------------------------------


def test_schedules_by_hand():
    """Two steps up, then four: cosine (1 + cos(0, pi/4, pi/2, 3pi/4)) / 2."""
    up = [0.5, 1.0]
    assert [Linear().factor(s, 6, 2) for s in range(6)] == [*up, 1, 0.75, 0.5, 0.25]
    assert [Linear(floor=0.2).factor(s, 6, 2) for s in range(6)] == pytest.approx(
        [*up, 1, 0.8, 0.6, 0.4]
    )
    half = math.sqrt(0.5)
    cosine = [1, (1 + half) / 2, 0.5, (1 - half) / 2]
    assert [Cosine().factor(s, 6, 2) for s in range(6)] == pytest.approx([*up, *cosine])
    floored = [0.1 + 0.9 * share for share in cosine]
    assert [Cosine(floor=0.1).factor(s, 6, 2) for s in range(6)] == pytest.approx([*up, *floored])
    assert [Constant().factor(s, 6, 2) for s in range(6)] == [*up, 1, 1, 1, 1]


@given(
    st.sampled_from([Linear(), Cosine(), Constant(), Linear(floor=0.5), Cosine(floor=0.5)]),
    st.integers(1, 200),
    st.floats(0, 1),
)
def test_no_step_is_wasted_and_none_exceeds_the_highest_rate(schedule, total, share):
    rise = int(share * total)
    factors = [schedule.factor(step, total, rise) for step in range(total)]
    assert min(factors) > 0 and max(factors) == 1
    assert factors[rise:] == sorted(factors[rise:], reverse=True)


def test_warm_up_in_steps_replaces_the_share():
    stage = TrainingSettings(
        loss=InfoNCE(), lr=0.8, warmup=0.5, warmup_steps=4, schedule=Constant()
    )
    assert [rate(stage, s, 8) for s in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert stage.rise(2) == 2  # a short stage
    assert stage.replace(warmup_steps=None).rise(8) == 4


def test_the_optimizer_gets_its_settings():
    stage = TrainingSettings(loss=InfoNCE(), betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3)
    matrices, rest = build_optimizer(torch.nn.Linear(3, 2), stage).param_groups
    assert matrices["weight_decay"] == 0.3 and rest["weight_decay"] == 0
    assert [p.shape for p in matrices["params"]] == [(2, 3)]
    for group in (matrices, rest):
        assert group["betas"] == (0.8, 0.95) and group["eps"] == 1e-6


def test_nothing_left_to_train():
    model = torch.nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(ValueError, match="freeze: no weight is left to train"):
        build_optimizer(model, STAGE)


# --- settings ------------------------------------------------------------------------------------


def test_validation_steps():
    stage = TrainingSettings(loss=InfoNCE(), validations=3)
    assert stage.validation_steps(7) == {3, 5, 7}
    assert stage.validation_steps(2) == {1, 2}
    every = stage.replace(validate_every=3)
    assert every.validation_steps(7) == {3, 6, 7} and every.validation_steps(6) == {3, 6}
    assert every.validation_steps(2) == {2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validations": 3, "early_stopping": {"patience": 2}}, "early_stopping.patience: one"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"eps": 0}, "eps"),
        ({"schedule": {"type": "triangular"}}, "schedule"),
        ({"freeze": {"layers": -1}}, "freeze"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
    ],
)
def test_settings_that_make_no_sense(changes, message):
    with pytest.raises(ValidationError, match=message):
        TrainingSettings.model_validate({"loss": {"type": "infonce"}, **changes})
    ok = {"validations": 4, "early_stopping": {"patience": 2}}
    assert TrainingSettings.model_validate({"loss": {"type": "infonce"}, **ok}).early_stopping


# --- selection -----------------------------------------------------------------------------------


def offers(values: list[float], stopping: EarlyStopping | None) -> tuple[Selection, int]:
    """The selection after its offers, and how many there were before it was exhausted."""
    selection, model = Selection("m", stopping), torch.nn.Linear(1, 1)
    for count, value in enumerate(values, 1):
        with torch.no_grad():
            model.weight.fill_(count)
        selection.offer(count, {"m": value}, model)
        if selection.exhausted:
            return selection, count
    return selection, len(values)


@pytest.mark.parametrize(
    ("values", "patience", "delta", "ended", "best"),
    [
        ([0.1, 0.2, 0.2, 0.1], 2, 0.0, 4, 2),  # equal is no improvement
        ([0.1, 0.2, 0.1, 0.3, 0.2, 0.2], 2, 0.0, 6, 4),
        ([0.5, 0.4], 1, 0.0, 2, 1),
        ([0.10, 0.14, 0.16, 0.18], 2, 0.05, 4, 4),  # .16 is .06 above .10: patience begins anew
        ([0.10, 0.14, 0.15, 0.90], 2, 0.05, 3, 3),  # the best is kept whatever its distance
        ([-0.5, -0.6, -0.7], 2, 0.0, 3, 1),  # measures may be negative
    ],
)
def test_patience(values, patience, delta, ended, best):
    selection, count = offers(values, EarlyStopping(patience=patience, min_delta=delta))
    assert (count, selection.best_step) == (ended, best)
    assert selection.weights is not None and float(selection.weights["weight"]) == best
    assert selection.best == {"m": values[best - 1]}


def test_without_early_stopping_nothing_is_exhausted():
    selection, count = offers([0.5] + [0.1] * 20, None)
    assert count == 21 and selection.best_step == 1


def test_a_selection_goes_on_from_its_state():
    stopping = EarlyStopping(patience=3)
    whole, _ = offers([0.3, 0.2, 0.1], stopping)
    again = Selection("m", stopping)
    again.load(whole.state())
    assert (again.best_step, again.best, again.stale, again.mark) == (1, {"m": 0.3}, 2, 0.3)
    again.offer(4, {"m": 0.0}, torch.nn.Linear(1, 1))
    assert again.exhausted
    fresh = Selection("m", stopping)
    fresh.load(Selection("m", stopping).state())
    assert fresh.mark == -math.inf


def test_a_stage_ends_early_with_its_best_weights(data, tiny_backbone):
    script = iter([0.1, 0.5, 0.4, 0.3, 0.2])
    seen = []

    def validate(model):
        seen.append(weights(model))
        return {"nDCG@10": next(script)}

    stage = STAGE.replace(steps=20, validate_every=2, early_stopping=EarlyStopping(patience=2))
    outcome, model, reports = fit(data, tiny_backbone, stage, validate=validate)
    assert outcome.steps == 8 and outcome.best_step == 4 and outcome.best == {"nDCG@10": 0.5}
    assert len(column(outcome, "loss")) == 8 and reports[-1]["step"] == 8
    assert same(weights(model), seen[1]) and not same(seen[1], seen[3])
    longer, _, _ = fit(data, tiny_backbone, stage.replace(early_stopping=None))
    assert column(longer, "lr")[:8] == column(outcome, "lr")  # the schedule is that of all steps
    assert column(longer, "loss")[:8] == column(outcome, "loss")


def test_frozen_weights_do_not_move(data, tiny_backbone):
    stage = STAGE.replace(freeze=Freeze(embeddings=True, layers=1))
    start = CrossEncoder(backbone=str(tiny_backbone), hidden_dropout=0.0).load(
        tiny_backbone, 1, training=True, device="cpu"
    )
    _, model, _ = fit(data, tiny_backbone, stage)
    moved = {n for n, v in weights(model).items() if not torch.equal(v, start.state_dict()[n])}
    assert moved and not {n for n in moved if "embeddings" in n or "layer.0." in n}
    assert any("layer.1." in n for n in moved) and "classifier.weight" in moved


def test_fewer_queries_than_workers(data, tiny_backbone, monkeypatch):
    monkeypatch.setattr("raypipe.train.loop.rank_and_world", lambda: (0, 7))
    with pytest.raises(ValueError, match=r"queries_per_step: 6 .*resources\.workers=7"):
        fit(data, tiny_backbone, STAGE)
