"""The pairs that a file is read for: those of the list reader; means of their values."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from raypipe.inference.lists import ListReader
from raypipe.teachers.published.wanted import PairMeans, WantedPairs


@pytest.mark.parametrize("depth", [0, 1, 3, 10])
@pytest.mark.parametrize("extra", [True, False])
def test_the_lists_are_those_of_the_list_reader(builder, lists, depth, extra):
    steps = {k: v for k, v in lists.inputs().items() if extra or k != "extra"}
    inputs = {name: builder.get(step) for name, step in steps.items()}
    reader = ListReader(inputs, depth)
    expected = sorted(reader.read(range(len(reader))), key=lambda one: one.query_index)
    found = WantedPairs(inputs, depth)
    assert found.query_ids.to_pylist() == [listed.query_id for listed in expected]
    numbers = [np.arange(a, b) for a, b in pairwise(found.bounds.tolist())]
    doc_ids = [found.doc_ids(of_query).to_pylist() for of_query in numbers]
    assert doc_ids == [listed.doc_ids for listed in expected]
    assert len(found) == sum(map(len, doc_ids))


def test_means_in_several_passes():
    means = PairMeans(4)
    means.add(np.array([2, 0, 2]), np.array([1.0, 5.0, 2.0]))
    means.add(np.array([], np.int64), np.array([]))
    means.add(np.array([2, 3]), np.array([6.0, -1.0]))
    np.testing.assert_array_equal(means.values(), [5.0, np.nan, 3.0, -1.0])
    assert means.averaged() == 1
