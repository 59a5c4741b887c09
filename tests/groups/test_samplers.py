"""Samplers: what can be drawn, how often, and that a query's draw is its own."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from raypipe.config import digest
from raypipe.groups.pool import Chosen, Pool, RankedList
from raypipe.groups.samplers import (
    LogRandom,
    Mixed,
    MixedPart,
    RandomWindow,
    Sampler,
    TopK,
    Uniform,
    query_rng,
)

BM25 = RankedList([f"d{i}" for i in range(1, 13)], list(range(1, 13)))
DENSE = RankedList(["d3", "e1", "d1", "e2", "e3"], [1, 2, 3, 4, 5])
CORPUS = [*(f"d{i}" for i in range(1, 13)), *(f"e{i}" for i in range(1, 30))]
POOL = Pool({"candidates": BM25, "dense": DENSE}, CORPUS, frozenset({"d2", "e5"}))


def ids(chosen: list[Chosen]) -> list[str]:
    return [one.doc_id for one in chosen]


def mixed(count: int, **shares: float) -> Mixed:
    parts = {
        name: MixedPart(share=share, sampler=Uniform() if name == "corpus" else TopK())
        for name, share in shares.items()
    }
    return Mixed(count=count, parts=parts)


# --- one ranked list -----------------------------------------------------------------------------


def test_the_best_that_are_allowed():
    chosen = TopK(count=3).choose(POOL, query_rng(0, "q"))
    assert chosen == [Chosen(f"d{i}", i, "candidates") for i in (1, 3, 4)]
    picky = Pool({"candidates": BM25}, accept=lambda one: one.rank % 2 == 0)
    assert ids(TopK(count=3).choose(picky, query_rng(0, "q"))) == ["d2", "d4", "d6"]


@pytest.mark.parametrize("sampler", [RandomWindow(count=4, low=2, high=9), LogRandom(count=4)])
def test_refusing_a_drawn_document_is_as_good_as_leaving_it_out(sampler):
    """Each of the documents allowed is drawn as often as without the others (5 deviations)."""
    late = Pool({"candidates": BM25}, accept=lambda one: one.doc_id not in {"d3", "d5"})
    early = Pool({"candidates": BM25}, forbidden=frozenset({"d3", "d5"}))
    drawn: tuple[Counter, Counter] = (Counter(), Counter())
    for query in range(3000):
        for pool, counter in zip((late, early), drawn, strict=True):
            counter.update(ids(sampler.choose(pool, query_rng(1, f"q{query}"))))
    assert drawn[0].keys() == drawn[1].keys() and not drawn[0].keys() & {"d3", "d5"}
    for doc_id in drawn[0]:
        assert abs(drawn[0][doc_id] - drawn[1][doc_id]) < 5 * (2 * 3000 * 0.25) ** 0.5


def exact_inclusion(ranks: list[int], count: int) -> dict[int, float]:
    """Probability that a rank is among `count` successive draws with weights 1 / rank."""
    found = dict.fromkeys(ranks, 0.0)
    for order in permutations(ranks, count):
        chance, left = 1.0, sum(1 / rank for rank in ranks)
        for rank in order:
            chance *= 1 / rank / left
            left -= 1 / rank
        for rank in order:
            found[rank] += chance
    return found


@pytest.mark.parametrize("count", [1, 2, 4])
def test_log_random_draws_in_proportion_to_one_by_rank(count):
    """6,000 queries; the deviation of a frequency is at most .5 / sqrt(6000) = .0065."""
    ranks = [1, 2, 3, 5, 9, 20, 21]
    exact = exact_inclusion(ranks[1:6], count)
    assert count > 1 or exact[2] / exact[20] == pytest.approx(10)
    drawn: Counter[int] = Counter()
    for query in range(6000):
        sampler = LogRandom(count=count, low=2, high=20)
        drawn.update(ranks[i] for i in sampler.sample(ranks, query_rng(0, f"q{query}")))
    assert drawn.keys() == exact.keys()
    for rank, chance in exact.items():
        assert abs(drawn[rank] / 6000 - chance) < 5 * 0.0065


@given(st.sets(st.integers(1, 60)), st.integers(1, 9), st.integers(1, 30), st.integers(0, 30))
def test_log_random_holds_its_window(ranks, count, low, width):
    ordered = sorted(ranks)
    sampler = LogRandom(count=count, low=low, high=low + width)
    picked = sampler.sample(ordered, query_rng(0, "q"))
    inside = [rank for rank in ordered if low <= rank <= low + width]
    assert picked == sorted(set(picked)) and len(picked) == min(count, len(inside))
    assert {ordered[i] for i in picked} <= set(inside)


def test_a_window_must_not_end_before_it_starts():
    with pytest.raises(ValueError, match=r"must not end \(high=3\) before low=5"):
        LogRandom(low=5, high=3)


@pytest.mark.parametrize(
    ("sampler", "ranks", "expected"),
    [
        (TopK(count=3), [1, 2, 4, 5], [0, 1, 2]),
        (TopK(count=3), [4, 9], [0, 1]),
        (TopK(), [], []),
        (RandomWindow(count=9, low=2, high=4), [1, 2, 3, 5], [1, 2]),
        (RandomWindow(count=9, low=5, high=5), [1, 5, 6], [1]),
        (RandomWindow(count=9, low=5, high=9), [1, 2], []),
    ],
)
def test_samples_that_leave_no_choice(sampler, ranks, expected):
    assert sampler.sample(ranks, np.random.default_rng(0)) == expected


@given(
    st.integers(1, 9),
    st.integers(1, 30),
    st.integers(0, 30),
    st.sets(st.integers(1, 60)),
    st.integers(0, 99),
)
def test_a_window_holds_its_bounds(count, low, width, ranks, seed):
    ranks = sorted(ranks)
    sampler = RandomWindow(count=count, low=low, high=low + width)
    picked = sampler.sample(ranks, np.random.default_rng(seed))
    inside = [rank for rank in ranks if low <= rank <= low + width]
    assert len(picked) == len(set(picked)) == min(count, len(inside))
    assert picked == sorted(picked) and {ranks[i] for i in picked} <= set(inside)


def test_a_window_is_sampled_uniformly():
    """2,000 queries draw 2 of 4: each is drawn 1,000 times, standard deviation 22."""
    drawn = np.zeros(6)
    for query in range(2000):
        picked = RandomWindow(count=2, low=2, high=5).sample(range(1, 7), query_rng(0, f"q{query}"))
        drawn[picked] += 1
    assert drawn[[0, 5]].tolist() == [0, 0]
    assert (np.abs(drawn[1:5] - 1000) < 5 * 22).all()


def test_depth_is_the_deepest_rank():
    assert RandomWindow(low=3, high=40).depth == 40
    assert TopK(count=40).depth is None


def test_a_generator_depends_on_seed_and_query_only():
    keys = [(0, "q1"), (0, "q2"), (1, "q1"), (10, "1"), (1, "01"), (0, "q1")]
    drawn = [query_rng(*key).integers(1 << 60) for key in keys]
    assert drawn[0] == drawn[5] and len(set(drawn)) == 5


# --- the collection ------------------------------------------------------------------------------


@given(st.sets(st.sampled_from(CORPUS)), st.integers(1, 60), st.text(max_size=3))
def test_uniform_never_draws_what_is_forbidden(forbidden, count, query):
    pool = Pool({}, CORPUS, frozenset(forbidden))
    chosen = Uniform(count=count).choose(pool, query_rng(0, query))
    assert len(chosen) == min(count, len(CORPUS) - len(forbidden))
    assert len(set(ids(chosen))) == len(chosen) and not forbidden & set(ids(chosen))
    assert {(one.rank, one.source) for one in chosen} <= {(0, "corpus")}


def test_uniform_is_uniform():
    """4,000 draws of 3 of the 39 allowed: 308 each, deviation 17."""
    drawn: Counter[str] = Counter()
    for query in range(4000):
        drawn.update(ids(Uniform(count=3).choose(POOL, query_rng(3, f"q{query}"))))
    assert len(drawn) == 39
    assert all(abs(times - 12000 / 39) < 5 * 17 for times in drawn.values())


def test_uniform_without_a_collection():
    with pytest.raises(ValueError, match="uniform draws from the collection, found no documents"):
        Uniform().choose(Pool({"candidates": BM25}), query_rng(0, "q"))


# --- mixtures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "shares", "expected"),
    [
        (10, {"candidates": 0.7, "dense": 0.2, "corpus": 0.1}, [7, 2, 1]),
        (7, {"candidates": 0.5, "corpus": 0.5}, [4, 3]),  # 3.5 each: the first gets the place
        (7, {"corpus": 1, "candidates": 1}, [4, 3]),
        (10, {"candidates": 0.15, "dense": 0.15, "corpus": 0.7}, [2, 1, 7]),
        (8, {"candidates": 1, "dense": 1, "corpus": 1}, [3, 3, 2]),  # 2.67 each
        (5, {"candidates": 6, "dense": 3, "corpus": 1}, [3, 2, 0]),  # 3, 1.5, .5: first of equals
        (1, {"candidates": 1, "dense": 2}, [0, 1]),
        (3, {"dense": 0.1}, [3]),
    ],
)
def test_largest_remainder(count, shares, expected):
    assert list(mixed(count, **shares).quotas().values()) == expected


@given(
    st.integers(1, 60),
    st.lists(st.floats(0.001, 50), min_size=1, max_size=3),
)
def test_quotas_add_up_and_stay_within_one_of_the_share(count, shares):
    names = ["candidates", "dense", "corpus"]
    given_ = dict(zip(names, shares, strict=False))
    quotas = mixed(count, **given_).quotas()
    assert sum(quotas.values()) == count
    for name, share in given_.items():
        assert abs(quotas[name] - count * share / sum(shares)) < 1 + 1e-9


def test_a_mixture_takes_its_shares_part_by_part():
    sampler = mixed(5, candidates=0.4, dense=0.4, corpus=0.2)
    chosen = sampler.choose(POOL, query_rng(0, "q"))
    # d3 and d1 are taken already when their turn comes in the dense list
    assert chosen[:4] == [
        Chosen("d1", 1, "candidates"),
        Chosen("d3", 3, "candidates"),
        Chosen("e1", 2, "dense"),
        Chosen("e2", 4, "dense"),
    ]
    assert (chosen[4].rank, chosen[4].source) == (0, "corpus")
    assert sampler.moved(chosen) == 0


def test_what_a_part_cannot_fill_the_others_do_in_order():
    sampler = mixed(16, dense=0.5, candidates=0.25, corpus=0.25)
    chosen = sampler.choose(POOL, query_rng(0, "q"))
    found = Counter(one.source for one in chosen)
    assert found == {"dense": 5, "candidates": 7, "corpus": 4}  # three moved to the first other
    assert sampler.moved(chosen) == 3 and len(set(ids(chosen))) == 16
    ranks = [one.rank for one in chosen if one.source == "candidates"]
    assert ranks[:4] == [4, 5, 6, 7] and ranks == sorted(ranks)  # 1 to 3: taken or forbidden


def test_a_mixture_ends_with_its_documents():
    chosen = mixed(16, dense=1, candidates=3).choose(POOL, query_rng(0, "q"))
    # 4 of the dense list, the 9 candidates that are left, then the last of the dense list
    assert Counter(one.source for one in chosen) == {"dense": 5, "candidates": 9}


def test_a_part_draws_the_same_whatever_the_others_do():
    window = MixedPart(share=1, sampler=RandomWindow(low=1, high=12))
    alone = Mixed(count=3, parts={"candidates": window})
    beside = Mixed(
        count=6, parts={"candidates": window, "corpus": MixedPart(share=1, sampler=Uniform())}
    )
    for query in "abcdefgh":
        first = alone.choose(POOL, query_rng(0, query))
        assert beside.choose(POOL, query_rng(0, query))[:3] == first


@given(
    st.sets(st.sampled_from(CORPUS)),
    st.integers(1, 45),
    st.sets(st.sampled_from(["candidates", "dense", "corpus"]), min_size=1),
    st.text(max_size=3),
)
def test_a_mixture_is_full_while_there_are_documents(forbidden, count, names, query):
    sampler = mixed(count, **dict.fromkeys(sorted(names), 1.0))
    pool = Pool(POOL.lists, CORPUS, frozenset(forbidden))
    lists = {"candidates": BM25.doc_ids, "dense": DENSE.doc_ids, "corpus": CORPUS}
    there = {doc_id for name in names for doc_id in lists[name]} - forbidden
    chosen = sampler.choose(pool, query_rng(0, query))
    assert len(chosen) == len(set(ids(chosen))) == min(count, len(there))
    assert set(ids(chosen)) <= there
    for one in chosen:
        assert one.doc_id in lists[one.source]
    assert chosen == sampler.choose(pool, query_rng(0, query))


def test_what_a_sampler_reads():
    parts = {
        "candidates": MixedPart(share=1, sampler=LogRandom(high=50)),
        "dense": MixedPart(share=1, sampler=RandomWindow(high=30)),
        "corpus": MixedPart(share=1, sampler=Uniform()),
    }
    sampler = Mixed(parts=parts)
    assert (sampler.depth, sampler.sources) == (50, {"dense"})
    assert sampler.reach == {"candidates": 50, "dense": 30}
    assert (mixed(3, dense=1).depth, mixed(3, dense=1).reach) == (0, {"dense": None})
    assert (TopK().depth, Uniform().depth, LogRandom(high=9).depth) == (None, 0, 9)
    assert TopK().sources == frozenset()


def test_a_source_that_is_missing():
    with pytest.raises(ValueError, match="no source 'dense', only \\['candidates'\\]"):
        mixed(3, dense=1).choose(Pool({"candidates": BM25}), query_rng(0, "q"))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"corpus": {"share": 1, "sampler": {"type": "top_k"}}}, "corpus is sampled by uniform"),
        ({"dense": {"share": 1, "sampler": {"type": "uniform"}}}, "found sampler uniform"),
        ({"qrels": {"share": 1, "sampler": {"type": "top_k"}}}, "means the judgements"),
        (
            {"candidates": {"share": 1, "sampler": {"type": "top_k", "count": 3}}},
            "set the mixture's count",
        ),
        ({"candidates": {"share": 0, "sampler": {"type": "top_k"}}}, "greater than 0"),
        ({"candidates": {"share": float("inf"), "sampler": {"type": "top_k"}}}, "finite"),
        ({}, "at least 1"),
    ],
)
def test_mixtures_that_mean_nothing(parts, message):
    with pytest.raises(ValueError, match=message):
        Mixed.model_validate({"parts": parts})


def test_a_mixture_survives_its_own_dump_and_its_order_counts():
    one = mixed(9, candidates=2, corpus=1)
    again = TypeAdapter(Sampler).validate_python(one.model_dump(mode="json"))
    assert again == one and list(again.parts) == ["candidates", "corpus"]
    other = mixed(9, corpus=1, candidates=2)
    assert digest(other) != digest(one) == digest(again)


def test_a_positive_may_be_part_of_the_key():
    assert query_rng(0, "q").integers(1 << 60) != query_rng(0, "q", "d").integers(1 << 60)
    assert query_rng(0, "q", "d").integers(1 << 60) != query_rng(0, "qd").integers(1 << 60)
    expected = np.random.default_rng(int.from_bytes(hashlib.sha256(b"0\0q").digest()[:16], "big"))
    assert query_rng(0, "q").integers(1 << 60) == expected.integers(1 << 60)
