"""Vectors in several parts as one matrix."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from vector_parts import write_vectors

from raypipe.inference.embeddings import Vectors


@pytest.mark.parametrize("sizes", [[10], [4, 6], [1] * 10, [3, 3, 3, 1]])
def test_rows_of_several_parts(tmp_path, sizes):
    whole = np.arange(30, dtype=np.float32).reshape(10, 3)
    vectors = write_vectors(tmp_path, whole, sizes)
    rows = np.array([9, 0, 3, 3, 4, 8])
    np.testing.assert_array_equal(vectors.take(rows), whole[rows])
    np.testing.assert_array_equal(vectors.take(range(2, 7)), whole[2:7])
    assert vectors.take(np.empty(0, dtype=np.int64)).shape == (0, 3)
    assert (len(vectors), vectors.width) == (10, 3)
    blocks = list(vectors.blocks(4))
    assert [start for start, _ in blocks] == np.cumsum([0, *(len(b) for _, b in blocks)])[
        :-1
    ].tolist()
    np.testing.assert_array_equal(np.concatenate([b for _, b in blocks]), whole)


def test_parts_stay_in_the_file(tmp_path):
    write_vectors(tmp_path, np.ones((4000, 30)), [1000] * 4)
    before = pa.total_allocated_bytes()
    vectors = Vectors(tmp_path)
    assert sum(float(block.sum()) for _, block in vectors.blocks(300)) == 120_000
    assert not vectors.parts[0].flags.writeable
    assert pa.total_allocated_bytes() - before < 20_000  # of 480,000 bytes
