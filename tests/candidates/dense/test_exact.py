"""Exact dense search against the whole matrix in numpy; ties, parts, margins."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_parts import ids, ids_order, lists, oracle, write_vectors

from raypipe.candidates.dense import exact
from raypipe.candidates.dense.exact import MARGIN, ExactSearch, top
from raypipe.candidates.dense.faiss_index import FaissSearch


def test_scores_by_hand(tmp_path):
    docs = write_vectors(tmp_path, np.array([[1, 0], [0.5, 2], [-1, 3], [0.5, 2]]), [3, 1])
    search = ExactSearch(docs, ids_order(pa.array(["c", "z", "b", "a"])))
    found = lists(search(np.array([[1, 0], [2, 1]], dtype=np.float32), 3))
    assert found == [([0, 3, 1], [1.0, 0.5, 0.5]), ([3, 1, 0], [3.0, 3.0, 2.0])]


@settings(deadline=None, max_examples=40, database=None)
@given(st.data())
def test_the_result_is_that_of_the_whole_matrix(tmp_path_factory, data):
    """Small integers: products are exact and nearly all scores are tied."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    sizes = data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=5))
    width, span = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 2))
    docs = rng.integers(-span, span + 1, (sum(sizes), width)).astype(np.float32)
    queries = rng.integers(-span, span + 1, (data.draw(st.integers(1, 7)), width))
    queries = queries.astype(np.float32)
    depth = data.draw(st.integers(1, 120))
    order = ids_order(ids(len(docs), seed=1))
    vectors = write_vectors(tmp_path_factory.getbasetemp() / "exact", docs, sizes)
    found = lists(ExactSearch(vectors, order)(queries, depth))
    assert found == oracle(docs, queries, order, depth)


@pytest.mark.parametrize("block", [7, 64, 8192])
def test_block_and_part_borders_do_not_show(tmp_path, monkeypatch, block):
    monkeypatch.setattr(exact, "BLOCK", block)
    rng = np.random.default_rng(3)
    docs = rng.standard_normal((500, 24)).astype(np.float32)
    docs[rng.integers(0, 500, 200)] = docs[0]  # one text 200 times
    queries = np.concatenate([docs[:1], rng.standard_normal((20, 24))]).astype(np.float32)
    order = ids_order(ids(500))
    expected = oracle(docs, queries, order, 50)
    for name, sizes in {"one": [500], "many": [100, 1, 150, 249]}.items():
        search = ExactSearch(write_vectors(tmp_path / name, docs, sizes), order)
        assert lists(search(queries, 50)) == expected


def test_more_equal_scores_than_the_margin_keep_the_lowest_ids(tmp_path):
    """3,000 equal vectors, depth + margin is 42: chance would pick any of them."""
    docs = np.ones((3001, 8), dtype=np.float32)
    docs[2000] = 2
    names = ids(3001)
    search = ExactSearch(write_vectors(tmp_path, docs, [1000, 2001]), ids_order(names))
    ((rows, scores),) = search(np.ones((1, 8), dtype=np.float32), 10)
    by_id = [i for i in np.argsort(names.to_pylist(), kind="stable") if i != 2000]
    assert rows.tolist() == [2000, *by_id[:9]]
    assert scores.tolist() == [16.0] + [8.0] * 9 and scores.dtype == np.float32


def test_depth_beyond_the_collection_and_no_queries(tmp_path):
    docs = write_vectors(tmp_path, np.array([[1.0], [3.0], [2.0]]))
    search = ExactSearch(docs, np.arange(3))
    assert lists(search(np.ones((1, 1), dtype=np.float32), 1000)) == [([1, 2, 0], [3, 2, 1])]
    assert search(np.empty((0, 1), dtype=np.float32), 5) == []


def test_a_query_does_not_depend_on_the_others(tmp_path):
    rng = np.random.default_rng(1)
    docs, queries = rng.standard_normal((900, 48)), rng.standard_normal((33, 48))
    queries = queries.astype(np.float32)
    search = ExactSearch(write_vectors(tmp_path, docs, [400, 500]), ids_order(ids(900)))
    together = lists(search(queries, 60))
    assert [lists(search(queries[i : i + 1], 60))[0] for i in range(33)] == together


@settings(deadline=None, max_examples=60, database=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 35), st.randoms())
def test_top_takes_the_lowest_ranks_of_equal_scores(values, keep, rng):
    ranks = list(range(len(values)))
    rng.shuffle(ranks)
    columns = top(torch.tensor([values]).float(), torch.tensor([ranks]), keep)
    best = sorted(range(len(values)), key=lambda i: (-values[i], ranks[i]))[:keep]
    assert sorted(columns[0].tolist()) == sorted(best)


def test_the_margin_is_what_the_docstrings_say():
    assert MARGIN == 32
    assert "depth + 32" in (ExactSearch.__doc__ or "") and "depth + 32" in (
        FaissSearch.__doc__ or ""
    )
