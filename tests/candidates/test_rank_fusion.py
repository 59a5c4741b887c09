"""Weighted sums of ranked lists: by hand, against a dictionary loop, and their properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.candidates.rank_fusion import MemberList, MinMax, ReciprocalRank, ZSum, fuse

METHODS = [ReciprocalRank(), ReciprocalRank(k=0), MinMax(), ZSum()]


def ranked(scores: dict[str, float]) -> MemberList:
    """Documents in the order given."""
    values = np.array(list(scores.values()), dtype=np.float64)
    return MemberList(list(scores), values, np.arange(1.0, len(scores) + 1))


def fused(lists: list[MemberList], method, weights=None, depth: int = 100) -> dict[str, float]:
    found = fuse(lists, weights or [1.0] * len(lists), method, depth)
    return dict(zip(found.doc_ids, found.scores, strict=True))


A = ranked({"a": 9.0, "b": 5.0, "c": 1.0})
B = ranked({"c": 0.8, "x": 0.6, "a": 0.4})


# --- by hand ---------------------------------------------------------------------------------


def test_reciprocal_rank_by_hand():
    found = fused([A, B], ReciprocalRank())
    expected = {"a": 1 / 61 + 1 / 63, "c": 1 / 63 + 1 / 61, "b": 1 / 62, "x": 1 / 62}
    assert list(found) == ["a", "c", "b", "x"]  # equal scores in the order of ids
    assert found == pytest.approx(expected, rel=1e-7)
    assert found["a"] == found["c"] and found["b"] == found["x"]
    small = fused([A, B], ReciprocalRank(k=1), weights=[1.0, 3.0])
    expected = {"c": 1 / 4 + 3 / 2, "a": 1 / 2 + 3 / 4, "x": 3 / 3, "b": 1 / 3}
    assert small == pytest.approx(expected, rel=1e-7) and list(small) == list(expected)


def test_reciprocal_rank_reads_ranks_not_scores():
    wrong_way = MemberList(["a", "b"], np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert list(fused([wrong_way], ReciprocalRank())) == ["a", "b"]
    assert list(fused([wrong_way], MinMax())) == ["b", "a"]


def test_min_max_by_hand():
    """A: 1, .5, 0; B: 1, .5, 0; b and x are absent once, which is as good as last."""
    found = fused([A, B], MinMax())
    assert found == pytest.approx({"a": 1.0, "c": 1.0, "b": 0.5, "x": 0.5}, rel=1e-7)
    assert list(found) == ["a", "c", "b", "x"]
    assert fused([A, B], MinMax(), weights=[1.0, 4.0]) == pytest.approx(
        {"c": 4.0, "x": 2.0, "a": 1.0, "b": 0.5}, rel=1e-7
    )


def test_z_sum_by_hand():
    """A: mean 5, variance (16 + 0 + 16) / 3, so z = 4 / sqrt(32 / 3) = 1.2247; B the same."""
    z = 4 / np.sqrt(32 / 3)
    found = fused([A, B], ZSum())
    assert found == pytest.approx({"a": 0.0, "c": 0.0, "b": -z, "x": -z}, abs=1e-6)
    assert list(found)[2:] == ["b", "x"]
    only = fused([A, ranked({"q": 3.0, "r": 1.0})], ZSum())  # no document in common
    expected = {"a": z - 1, "b": -1.0, "c": -z - 1, "q": -z + 1, "r": -z - 1}
    assert only == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", [MinMax(), ZSum()])
def test_a_list_of_equal_scores_says_nothing(method):
    same = ranked({"p": 0.1, "q": 0.1, "r": 0.1})
    found = fused([A, same], method)
    alone = fused([A], method)
    assert {d: found[d] for d in "abc"} == alone
    assert [found[d] for d in "pqr"] == [min(alone.values())] * 3


@pytest.mark.parametrize("method", METHODS)
def test_a_member_without_candidates_contributes_nothing(method):
    nothing = ranked({})
    assert fused([A, nothing, B], method, [1.0, 5.0, 2.0]) == fused([A, B], method, [1.0, 2.0])
    found = fuse([nothing, nothing], [1.0, 1.0], method, 10)
    assert (found.doc_ids, found.scores, found.members) == ([], [], [])


def test_members_of_every_document():
    found = fuse([A, ranked({}), B], [1.0] * 3, ReciprocalRank(), 3)
    assert found.doc_ids == ["a", "c", "b"] and found.members == [(0, 2), (0, 2), (0,)]


# --- against a loop, and properties ------------------------------------------------------------


def naive(lists: list[dict[str, float]], weights: list[float], method) -> dict[str, float]:
    """One document at a time, as the docstrings of the methods say it."""
    total: dict[str, float] = {}
    for doc in {d for one in lists for d in one}:
        total[doc] = 0.0
        for one, weight in zip(lists, weights, strict=True):
            if not one:
                continue
            values = list(one.values())
            low, high = min(values), max(values)
            if isinstance(method, ReciprocalRank):
                gain = 1 / (method.k + list(one).index(doc) + 1) if doc in one else 0.0
            elif low == high:
                gain = 0.0
            elif isinstance(method, MinMax):
                gain = (one.get(doc, low) - low) / (high - low)
            else:
                mean = sum(values) / len(values)
                deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
                gain = (one.get(doc, low) - mean) / deviation
            total[doc] += weight * gain
    return total


one_list = st.dictionaries(st.sampled_from("abcdefghij"), st.integers(-20, 20), max_size=8).map(
    lambda d: dict(sorted(d.items(), key=lambda item: -item[1]))
)
weights_of = st.lists(st.sampled_from([0.25, 1.0, 3.0]), min_size=4, max_size=4)


@settings(deadline=None, max_examples=150, database=None)
@given(st.lists(one_list, min_size=1, max_size=4), weights_of, st.sampled_from(METHODS))
def test_fusion_is_that_of_the_loop(lists, weights, method):
    weights = weights[: len(lists)]
    found = fuse([ranked(one) for one in lists], weights, method, 100)
    expected = naive(lists, weights, method)
    assert set(found.doc_ids) == set(expected)
    for doc_id, score, have in zip(found.doc_ids, found.scores, found.members, strict=True):
        assert score == pytest.approx(expected[doc_id], rel=1e-5, abs=1e-6)
        assert score == float(np.float32(score))
        assert have == tuple(i for i, one in enumerate(lists) if doc_id in one)
    pairs = list(zip(found.doc_ids, found.scores, strict=True))
    assert pairs == sorted(pairs, key=lambda item: (-item[1], item[0]))


@settings(deadline=None, max_examples=80, database=None)
@given(
    st.lists(one_list, min_size=2, max_size=4),
    weights_of,
    st.sampled_from(METHODS),
    st.randoms(),
    st.integers(1, 12),
)
def test_the_order_of_members_and_the_scale_of_weights_do_not_matter(
    lists, weights, method, rng, depth
):
    members = list(zip([ranked(one) for one in lists], weights, strict=False))
    shuffled = rng.sample(members, len(members))
    first, second = (fuse(*zip(*m, strict=True), method, depth) for m in (members, shuffled))
    assert (first.doc_ids, first.scores) == (second.doc_ids, second.scores)  # to the last bit
    scaled = fuse([one for one, _ in members], [8 * w for _, w in members], method, depth)
    assert scaled.doc_ids == first.doc_ids
    assert scaled.scores == [8 * score for score in first.scores]
    whole = fuse(*zip(*members, strict=True), method, 100)
    assert first.doc_ids == whole.doc_ids[:depth]


def test_the_sum_is_the_same_in_every_order_of_members():
    """1 + 2^-24 + 2^-53 + 2^-53 is rounded twice on the way from the left, not from the right."""
    weights = [1.0, 2.0**-24, 2.0**-53, 2.0**-53]
    members = [ranked({"a": 1.0})] * 4
    forth, back = (fuse(members, w, ReciprocalRank(k=0), 1) for w in (weights, weights[::-1]))
    assert forth.scores == back.scores == [1 + 2.0**-23]


@settings(deadline=None, max_examples=50, database=None)
@given(one_list, st.sampled_from([MinMax(), ZSum()]), st.sampled_from([0.5, 2.0, 16.0]))
def test_the_scale_of_a_members_scores_does_not_matter(one, method, scale):
    moved = {doc: scale * score + 3 for doc, score in one.items()}
    first, second = (fused([ranked(x), B], method) for x in (one, moved))
    assert first == pytest.approx(second, abs=1e-5)
