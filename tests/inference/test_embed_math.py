"""The arithmetic of vector teachers: normalisation, the first stage's floor, vectors on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.inference.embed import _merged, first_stage_scores, read_vectors, zscore


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


def test_zscore_of_nothing():
    assert zscore(np.empty(0)).shape == (0,)


ROW = {"doc_ids": ["a", "b", "c"], "scores": [9.0, 4.0, 2.5]}


def test_what_was_not_retrieved_gets_the_lowest_score():
    found = first_stage_scores(ROW, ["c", "x", "a", "y"])
    assert found.tolist() == [2.5, 2.5, 9.0, 2.5] and found.dtype == np.float64


def test_the_floor_is_that_of_the_whole_list_not_of_what_is_asked():
    assert first_stage_scores(ROW, ["a", "x"]).tolist() == [9.0, 2.5]


def test_no_candidates_no_floor():
    assert first_stage_scores({"doc_ids": [], "scores": []}, ["x", "y"]).tolist() == [0.0, 0.0]
    assert first_stage_scores(ROW, []).shape == (0,)


def test_candidates_come_first_and_once():
    assert _merged(["b", "a"], ["c", "a", "d"]) == ["b", "a", "c", "d"]


def vectors(folder: Path, parts: list[np.ndarray]) -> np.ndarray:
    for number, part in enumerate(parts):
        column = pa.FixedSizeListArray.from_arrays(part.reshape(-1), part.shape[1])
        table = pa.table({"vector": column})
        with pa.ipc.new_file(str(folder / f"part-{number:05d}.arrow"), table.schema) as writer:
            writer.write_table(table)
    return read_vectors(folder)


@pytest.mark.parametrize("sizes", [(7,), (3, 4), (1,) * 12])
def test_vectors_of_several_parts_are_one_matrix(tmp_path, sizes):
    whole = np.random.default_rng(0).standard_normal((sum(sizes), 5)).astype(np.float32)
    found = vectors(tmp_path, np.split(whole, np.cumsum(sizes)[:-1]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, whole)


def test_one_part_is_mapped_not_copied(tmp_path):
    whole = np.ones((1000, 30), dtype=np.float32)
    vectors(tmp_path, [whole])
    before = pa.total_allocated_bytes()
    found = read_vectors(tmp_path)
    assert found.sum() == 30_000 and not found.flags.writeable
    assert pa.total_allocated_bytes() - before < 10_000  # of 120,000 bytes
