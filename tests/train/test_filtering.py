"""Thresholds by hand, and settings of a filter that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from raypipe.train.filtering import Filtering, keeping, threshold_of

ONES = np.ones(4)


def test_thresholds_by_hand():
    losses = np.array([1.0, 4.0, 2.0, 3.0])
    assert threshold_of(losses, ONES, Filtering()) == 2.5
    # a threshold with at least 1 - quantile of the losses at or above it
    for quantile, expected in ((0.0, 1.0), (0.25, 2.0), (0.3, 2.0), (0.5, 3.0), (0.8, 4.0)):
        config = Filtering(threshold="quantile", quantile=quantile)
        assert threshold_of(losses, ONES, config) == expected
    # a probe of share .5 stands for two groups: (2*1 + 4 + 2 + 3) / 5
    weights = np.array([2.0, 1.0, 1.0, 1.0])
    assert threshold_of(losses, weights, Filtering()) == 2.2
    assert keeping(losses, weights, 0.6) == 2.0 and keeping(losses, weights, 0.61) == 1.0
    assert keeping(losses, weights, 0.0) == 4.0 and keeping(losses, weights, 1.0) == 1.0


@pytest.mark.parametrize(
    "field", [{"window": 4}, {"probe": 0}, {"skill": 1}, {"min_keep": 1.5}, {"quantile": 1}]
)
def test_bounds(field):
    with pytest.raises(ValidationError):
        Filtering(**field)
