"""How far weights move, which of them can, and whether a loss falls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from raypipe.train.drift import (
    LossCurve,
    copy_of_trainable,
    drift,
    drift_sentence,
    rate_sentence,
    spacing_share,
)


def test_the_loss_curve_by_hand():
    curve = LossCurve()
    for value in [4.0] * 8 + [2.0] * 8:
        curve.add(value)
    assert curve.flat() is None  # no noise but one jump: 4 / 30 = .365 squared; the fall is 2
    curve = LossCurve()
    for value in [2.0] * 15:
        curve.add(value)
    assert curve.flat() is None  # too short
    curve.add(2.0)
    assert curve.flat() == (2.0, 2.0)
    rising = LossCurve()
    for step in range(100):
        rising.add(1 + step / 100)
    first, last = rising.flat()
    assert first < last


def test_the_curve_keeps_at_most_64_means_of_equally_many_steps():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(1000)
    curve = LossCurve()
    for value in values:
        curve.add(float(value))
    state = curve.state()
    assert state["size"] == 16 and len(state["means"]) == 62 and len(state["part"]) == 8
    whole = values[: 62 * 16].reshape(62, 16).mean(1)
    assert state["means"] == pytest.approx(whole.tolist())


def test_flat_is_rarely_missed_and_rarely_wrong():
    """Level noise is called flat, the same noise with a fall of two standard deviations is not."""
    rng = np.random.default_rng(3)
    right = {"flat": 0, "falling": 0}
    for _ in range(200):
        noise = rng.standard_normal(300) * 0.3
        for name, fall in (("flat", 0.0), ("falling", 0.6)):
            curve = LossCurve()
            for step, value in enumerate(noise):
                curve.add(2 + float(value) - fall * step / 300)
            right[name] += (curve.flat() is not None) == (name == "flat")
    assert right["flat"] >= 190 and right["falling"] >= 195


def weights_of(values: torch.Tensor, dtype=torch.float32) -> nn.Module:
    model = nn.Module()
    model.layer = nn.Parameter(values.to(dtype))
    return model


def test_spacing_share_by_hand():
    # half the spacing at 1 is 6e-8 upwards, 3e-8 downwards; at .25 a quarter of it
    model = weights_of(torch.tensor([1.0, 0.25, 0.0, -1.5]))
    assert spacing_share(model, 1e-9) == 0.75  # zero always moves
    assert spacing_share(model, 2.9e-8) == 0.5
    assert spacing_share(model, 4e-8) == 0.25  # 1.0 moves downwards
    assert spacing_share(model, 7e-8) == 0.0
    model.layer.requires_grad_(False)
    assert spacing_share(model, 1e-9) == 0.0


@pytest.mark.parametrize("lr", [6e-12, 1e-9, 3e-8])
def test_spacing_share_is_that_of_nextafter(lr: float):
    w = torch.from_numpy(np.random.default_rng(0).standard_normal(5000) * 0.02).float()
    towards_zero = w.abs() - torch.nextafter(w.abs(), torch.tensor(0.0))
    expected = float((lr < towards_zero.double() / 2).double().mean())
    assert spacing_share(weights_of(w), lr) == pytest.approx(expected, abs=1e-12)


def test_no_weight_above_1_in_10000_moves_at_6e_12_and_a_usual_rate_is_fine():
    w = torch.from_numpy(np.random.default_rng(0).standard_normal(50_000) * 0.04).float()
    share = spacing_share(weights_of(w), 6e-12)
    assert 0.995 < share < 1.0
    sentence = rate_sentence(share, 6e-12)
    assert sentence.startswith("lr 6e-12 cannot move 99.8 % of the weights: ")
    assert rate_sentence(spacing_share(weights_of(w), 1e-6), 1e-6) is None
    # the spacing is that of the weights' own type
    assert spacing_share(weights_of(w, torch.bfloat16), 1e-6) > 0.9


def test_drift_by_hand():
    model = nn.Module()
    model.embeddings = nn.Parameter(torch.tensor([3.0, 0.0]))
    model.layer = nn.Parameter(torch.tensor([4.0, 0.0]))
    model.frozen = nn.Parameter(torch.tensor([100.0]), requires_grad=False)
    start = copy_of_trainable(model)
    assert drift(start, model) == {
        "drift": 0.0,
        "drift_unchanged": 1.0,
        "drift_unchanged_layers": 1.0,
    }
    with torch.no_grad():
        model.layer += torch.tensor([0.3, 0.4])
    moved = drift(start, model)
    assert moved["drift"] == pytest.approx(0.1)  # .5 / 5
    assert (moved["drift_unchanged"], moved["drift_unchanged_layers"]) == (0.5, 0.0)
    assert drift_sentence(moved) == (
        "The stage moved the trainable weights by 10.00% (relative L2 distance); 50.0 % of them "
        "did not change at all, 0.0 % outside the embeddings."
    )


def test_drift_refuses_weights_it_has_no_start_of():
    model = weights_of(torch.ones(2))
    with pytest.raises(ValueError, match="expected start weights for layer of shape"):
        drift({}, model)
    with pytest.raises(ValueError, match=r"found \(3,\)"):
        drift({"layer": torch.ones(3)}, model)
