"""What a stage's settings mean: steps, validations, and combinations that are refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from raypipe.losses.listwise import InfoNCE
from raypipe.train.settings import TrainingSettings


@pytest.mark.parametrize(
    ("changes", "groups", "steps"),
    [
        ({}, 160, 10),
        ({}, 175, 10),  # a rest begins no step
        ({}, 3, 1),  # but there is always one
        ({"epochs": 2.5}, 160, 25),
        ({"epochs": 0.5, "queries_per_step": 4}, 160, 20),
        ({"epochs": 2, "queries_per_step": 10}, 15, 3),  # steps run across epoch ends
        ({"steps": 7, "epochs": 3}, 160, 7),
    ],
)
def test_total_steps(changes, groups, steps):
    assert TrainingSettings(loss=InfoNCE(), **changes).total_steps(groups) == steps


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
