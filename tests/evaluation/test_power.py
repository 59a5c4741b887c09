"""The simulation: the level it measures is that of the tests that reports use."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.evaluation.power import _p_values, rejections
from raypipe.evaluation.significance import paired_test


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_simulated_test_is_that_of_reports(seeds):
    arms = np.random.default_rng(0).normal(0.5, 0.2, (5, 2, seeds, 30))
    expected = [paired_test(first, second).p for first, second in arms]
    assert _p_values(arms)[1] == pytest.approx(expected)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("seed_sd", [0.0, 0.01, 0.02])
def test_equal_recipes_differ_as_often_as_alpha_says(seeds, seed_sd):
    """1,000 draws of a level of .05 have a standard deviation of .007."""
    level = rejections(600, seeds, seed_sd, runs=1000)
    assert 0.02 <= level.with_seeds <= 0.072
    if seed_sd >= 0.01:
        assert level.queries_alone > 0.12


def test_more_seeds_find_more():
    power = [rejections(600, seeds, 0.01, 0.03, runs=300).with_seeds for seeds in (3, 12)]
    assert 0.3 < power[0] < power[1] - 0.1
