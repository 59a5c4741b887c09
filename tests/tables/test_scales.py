"""Lists on one scale, and the first stage's floor of vector teachers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.tables.scales import min_max, zscore
from raypipe.teachers.bi_encoder import first_stage_scores


def test_zscore_by_hand():
    """Mean 3, variance (4 + 1 + 1 + 4) / 4 = 2.5."""
    expected = np.array([-2, -1, 1, 2]) / np.sqrt(2.5)
    np.testing.assert_allclose(zscore(np.array([1.0, 2.0, 4.0, 5.0])), expected, rtol=1e-15)


@given(st.lists(st.integers(-50, 50), min_size=2).filter(lambda v: len(set(v)) > 1))
def test_zscore_has_mean_zero_and_variance_one_on_any_scale(values):
    array = np.array(values, dtype=np.float64)
    found = zscore(array)
    assert abs(found.mean()) < 1e-9 and abs(found.std() - 1) < 1e-9
    np.testing.assert_allclose(zscore(3 * array - 40), found, atol=1e-9)
    np.testing.assert_allclose(zscore(-array), -found, atol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("value", [0.0, 2.0, 0.1, -1e-3, 12.7])
def test_a_constant_list_becomes_zeros(value, size):
    narrow = np.full(size, value, dtype=np.float32).astype(np.float64)  # as dot products arrive
    assert zscore(narrow).tolist() == [0.0] * size


@pytest.mark.parametrize("size", [3, 7, 50])
def test_a_constant_list_of_full_doubles_becomes_zeros(size):
    """The mean of three 0.1 is not 0.1, so its deviation is 1e-17, and not 0."""
    assert zscore(np.full(size, 0.1)).tolist() == [0.0] * size


def test_min_max_by_hand():
    assert min_max(np.array([5.0, 1.0, 9.0])).tolist() == [0.5, 0.0, 1.0]
    assert min_max(np.full(3, 0.1)).tolist() == [0.0] * 3


def test_nothing_stays_nothing():
    assert zscore(np.empty(0)).shape == min_max(np.empty(0)).shape == (0,)


ROW = {"a": 9.0, "b": 4.0, "c": 2.5}


def test_what_was_not_retrieved_gets_the_lowest_score():
    found = first_stage_scores(ROW, ["c", "x", "a", "y"])
    assert found.tolist() == [2.5, 2.5, 9.0, 2.5] and found.dtype == np.float64


def test_the_floor_is_that_of_the_whole_list_not_of_what_is_asked():
    assert first_stage_scores(ROW, ["a", "x"]).tolist() == [9.0, 2.5]


def test_no_candidates_no_floor():
    assert first_stage_scores({}, ["x", "y"]).tolist() == [0.0, 0.0]
    assert first_stage_scores(ROW, []).shape == (0,)
