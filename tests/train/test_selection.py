"""Early stopping, and the weights that are kept."""

from __future__ import annotations

import json
import math

import pytest
import torch
from tiny_training import STAGE, column, fit, same, weights

from raypipe.train.alarms import Alarms
from raypipe.train.selection import Selection
from raypipe.train.settings import EarlyStopping

WEIGHT = torch.nn.Linear(1, 1)


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


def test_of_losses_the_lowest_is_kept():
    """Patience, the least improvement and what a restart goes on from have the sign of a loss."""
    selection, model = Selection("loss", EarlyStopping(patience=2, min_delta=0.05)), WEIGHT
    for step, value in enumerate([2.0, 1.0, 0.97, 1.5]):
        selection.offer(step, {"loss": value, "nDCG@10": value}, model)
        again = Selection("loss", EarlyStopping(patience=2, min_delta=0.05))
        again.load(json.loads(json.dumps(selection.state(), allow_nan=False)))
        selection = again
        assert selection.exhausted == (step == 3)
    assert selection.best == {"loss": 0.97, "nDCG@10": 0.97} and selection.best_step == 2


def test_without_early_stopping_nothing_is_exhausted():
    selection, count = offers([0.5] + [0.1] * 20, None)
    assert count == 21 and selection.best_step == 1


def test_the_start_uses_up_no_patience():
    """A stage may fall below its start before it rises."""
    selection, model = Selection("m", EarlyStopping(patience=2)), torch.nn.Linear(1, 1)
    selection.offer(0, {"m": 0.5}, model)
    again = Selection("m", EarlyStopping(patience=2))
    again.load(json.loads(json.dumps(selection.state(), allow_nan=False)))
    for chosen in (selection, again):
        for step, value in enumerate((0.1, 0.2, 0.2), 1):
            chosen.offer(step, {"m": value}, model)
            assert not chosen.exhausted
        assert (chosen.best_step, chosen.best) == (0, {"m": 0.5})
        chosen.offer(4, {"m": 0.1}, model)
        assert chosen.exhausted


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


def test_a_stage_whose_loss_rises_keeps_its_start(data, tiny_backbone):
    script, seen, said = iter([0.5, 0.6, 0.9, 0.2]), [], []
    alarms = Alarms(said.append, "loss", None)

    def validate(model):
        seen.append(weights(model))
        return {"loss": next(script), "nDCG@10": 0.1 * len(seen)}

    outcome, model, _ = fit(
        data,
        tiny_backbone,
        STAGE.replace(steps=20, validate_every=2, early_stopping=EarlyStopping(patience=1)),
        validate=validate,
        selection="loss",
        offers_start=True,
        alarms=alarms,
    )
    alarms.on_end()
    assert (outcome.steps, outcome.best_step) == (4, 0)
    assert outcome.best == {"loss": 0.5, "nDCG@10": 0.1} and same(weights(model), seen[0])
    assert any("validation loss was 0.5000 before the first step" in line for line in said)


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
