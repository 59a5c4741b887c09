"""Which documents a query trains on: never a relevant one as a negative, never by chance."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.groups.form import Formed, Groups, Material, form_group, form_groups
from raypipe.groups.pool import RankedList
from raypipe.groups.samplers import LogRandom, Mixed, MixedPart, RandomWindow, TopK, Uniform

DOCS = [f"d{i:02d}" for i in range(1, 21)]
RANKS = list(range(1, 21))


def form(groups: Groups, relevance: dict[str, int], query_id="q", positive=1) -> Formed | str:
    return form_group(groups, query_id, DOCS, RANKS, relevance, positive)


def split(formed: Formed | str, positive=1) -> tuple[list[str], list[str]]:
    """Positives, negatives."""
    assert isinstance(formed, Formed)
    count = sum(value >= positive for value in formed.relevance)
    return formed.doc_ids[:count], formed.doc_ids[count:]


# --- forming -------------------------------------------------------------------------------------


def test_groups_do_not_depend_on_the_order_of_queries():
    groups = Groups(negatives=RandomWindow(count=5, low=1, high=20))
    ids = [f"q{i}" for i in range(20)]
    forward = {i: form(groups, {"d01": 1}, i) for i in ids}
    backward = {i: form(groups, {"d01": 1}, i) for i in reversed(ids)}
    assert forward == backward
    assert len({tuple(group.doc_ids) for group in forward.values()}) > 15
    other = {i: form(groups.replace(seed=1), {"d01": 1}, i) for i in ids}
    assert sum(forward[i] != other[i] for i in ids) > 15


def test_positives_first_then_negatives_by_rank():
    groups = Groups(negatives=TopK(count=3), max_positives=5)
    formed = form(groups, {"d04": 2, "d02": 1, "zz": 1, "aa": 1, "d01": 0})
    assert formed == Formed(
        doc_ids=["d02", "d04", "aa", "zz", "d01", "d03", "d05"],
        relevance=[1, 2, 1, 1, 0, 0, 0],
        ranks=[2, 4, 0, 0, 1, 3, 5],
        sources=["candidates"] * 2 + ["qrels"] * 2 + ["candidates"] * 3,
    )


def test_between_zero_and_the_threshold_is_neither():
    formed = form(
        Groups(negatives=TopK(count=20), max_positives=20),
        {"d01": 1, "d02": 2, "d03": 3, "d04": 0, "d05": -2},
        positive=2,
    )
    positives, negatives = split(formed, 2)
    assert positives == ["d02", "d03"]
    assert negatives == DOCS[3:]  # not d01; judged not relevant and spam are negatives
    assert formed.relevance[2:4] == [0, -2]


@settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from([*DOCS, "x1", "x2"]), st.integers(-2, 3)),
    st.integers(1, 3),
    st.sampled_from(["inject", "drop", "keep_if_retrieved"]),
    st.integers(1, 3),
    st.sampled_from([TopK(count=4), RandomWindow(count=4, low=2, high=12)]),
)
def test_whatever_the_judgements_are(relevance, positive, policy, most, sampler):
    groups = Groups(negatives=sampler, positives=policy, max_positives=most)
    formed = form(groups, relevance, positive=positive)
    relevant = {d for d, value in relevance.items() if value >= positive}
    if isinstance(formed, str):
        assert formed.startswith("queries_with")
        assert not relevant or policy == "drop" or formed == "queries_without_negatives"
        return
    pool = relevant if policy == "inject" else relevant & set(DOCS)
    chosen = set(formed.doc_ids) & relevant
    assert chosen <= pool and len(chosen) == min(most, len(pool))
    negatives = formed.doc_ids[len(chosen) :]
    assert set(formed.doc_ids[: len(chosen)]) == chosen
    assert all(relevance.get(doc, 0) <= 0 for doc in negatives)
    assert 1 <= len(negatives) <= 4 and len(formed.doc_ids) == len(set(formed.doc_ids)) >= 2
    rank_of = dict(zip(DOCS, RANKS, strict=True))
    assert formed.ranks == [rank_of.get(doc, 0) for doc in formed.doc_ids]
    assert formed.relevance == [relevance.get(doc, 0) for doc in formed.doc_ids]
    if isinstance(sampler, RandomWindow):
        assert all(2 <= rank <= 12 for rank in formed.ranks[len(chosen) :])


@pytest.mark.parametrize(
    ("policy", "found"),
    [("inject", ["out"]), ("keep_if_retrieved", []), ("drop", None)],
)
def test_a_positive_that_was_not_retrieved(policy, found):
    formed = form(Groups(negatives=TopK(count=2), positives=policy), {"out": 1})
    if found is None:
        assert formed == "queries_with_no_positive_retrieved"
    else:
        assert split(formed) == (found, ["d01", "d02"])
        assert formed.ranks == [0] * len(found) + [1, 2]


@pytest.mark.parametrize("policy", ["drop", "keep_if_retrieved"])
def test_only_retrieved_positives_are_drawn_unless_injected(policy):
    relevance = {"out1": 1, "out2": 1, "out3": 1, "d05": 1}
    for query in range(10):
        formed = form(Groups(positives=policy), relevance, f"q{query}")
        assert split(formed)[0] == ["d05"]
    drawn = {split(form(Groups(), relevance, f"q{query}"))[0][0] for query in range(60)}
    assert drawn == set(relevance)


@pytest.mark.parametrize(
    ("groups", "relevance", "counter"),
    [
        (Groups(), {}, "queries_without_positive"),
        (Groups(), {"d01": 0, "d02": -1}, "queries_without_positive"),
        (Groups(positives="drop"), {"out": 1}, "queries_with_no_positive_retrieved"),
        (Groups(), dict.fromkeys(DOCS, 1), "queries_without_negatives"),
        (
            Groups(negatives=RandomWindow(low=21, high=30)),
            {"d01": 1},
            "queries_without_negatives",
        ),
        (
            Groups(negatives=TopK(count=1), positives="keep_if_retrieved"),
            {"out": 1},
            "queries_with_one_document",
        ),
    ],
)
def test_why_a_query_forms_no_group(groups, relevance, counter):
    assert form(groups, relevance) == counter


def test_a_query_without_candidates():
    assert form_group(Groups(), "q", [], [], {"d": 1}, 1) == "queries_without_negatives"


def test_fewer_candidates_than_count():
    formed = form_group(Groups(), "q", DOCS[:3], RANKS[:3], {"d02": 1}, 1)
    assert split(formed) == (["d02"], ["d01", "d03"])


# --- several groups per query --------------------------------------------------------------------

EACH = Groups(negatives=TopK(count=3), groups_per_query="each_positive")


def form_all(groups: Groups, relevance: dict[str, int], query_id="q", positive=1, **material):
    counts: Counter[str] = Counter()
    formed = form_groups(
        groups,
        query_id,
        DOCS,
        RANKS,
        relevance,
        positive,
        material=Material(**material),
        counts=counts,
    )
    return formed, {name: count for name, count in counts.items() if count}


def test_each_positive_has_a_group_of_its_own():
    formed, counts = form_all(EACH, {"d02": 1, "d04": 2, "out": 1, "d05": 0})
    assert [one.doc_ids for one in formed] == [
        ["d02", "d01", "d03", "d05"],
        ["d04", "d01", "d03", "d05"],
        ["out", "d01", "d03", "d05"],
    ]
    assert [one.ranks[0] for one in formed] == [2, 4, 0]
    assert [one.sources[0] for one in formed] == ["candidates", "candidates", "qrels"]
    assert counts == {}


def test_groups_of_a_query_draw_for_themselves():
    """By seed, query and positive: another positive of the query changes nothing."""
    groups = EACH.replace(negatives=RandomWindow(count=5, low=1, high=20))
    both, _ = form_all(groups, {"x": 1, "y": 1})
    assert both[0].doc_ids[1:] != both[1].doc_ids[1:]
    assert form_all(groups, {"y": 1})[0] == both[1:]
    assert form_all(groups.replace(seed=1), {"y": 1})[0] != both[1:]
    assert form_all(groups, {"y": 1}, "q2")[0] != both[1:]


@pytest.mark.parametrize(
    ("policy", "positives"),
    [("inject", ["d02", "out"]), ("drop", ["d02"]), ("keep_if_retrieved", ["d02"])],
)
def test_each_positive_that_the_policy_allows(policy, positives):
    formed, _ = form_all(EACH.replace(positives=policy), {"d02": 1, "out": 1})
    assert [one.doc_ids[0] for one in formed] == positives
    assert all(one.doc_ids[1:] == ["d01", "d03", "d04"] for one in formed)


def test_a_query_kept_without_a_positive_has_one_group():
    formed, counts = form_all(EACH.replace(positives="keep_if_retrieved"), {"out": 1})
    assert [one.doc_ids for one in formed] == [["d01", "d02", "d03"]] and counts == {}


def test_a_query_without_groups_is_counted_once():
    everything = dict.fromkeys(DOCS, 1)
    assert form_all(EACH, everything) == ([], {"queries_without_negatives": 1})
    assert form_all(EACH, {}) == ([], {"queries_without_positive": 1})
    dropped = form_all(EACH.replace(positives="drop"), {"out": 1})
    assert dropped == ([], {"queries_with_no_positive_retrieved": 1})
    assert form_all(Groups(), everything) == ([], {"queries_without_negatives": 1})


def test_a_positive_without_a_group_is_counted_beside_those_with_one():
    groups = EACH.replace(filters=[{"type": "absolute_margin", "margin": 0.1}])
    scores = {"d02": 0.9, **dict.fromkeys(DOCS[4:], 0.1)}
    formed, counts = form_all(groups, {"d02": 1, "d04": 1, "out": 1}, scores=scores)
    assert [one.doc_ids for one in formed] == [["d02", "d05", "d06", "d07"]]
    assert counts == {"positives_without_group": 2, "candidates_without_teacher_score": 2}


def test_one_group_is_what_form_group_says():
    groups = Groups(negatives=RandomWindow(count=4), max_positives=2)
    relevance = {"d02": 1, "d04": 1, "d07": 2}
    assert form_all(groups, relevance)[0] == [form(groups, relevance)]


def test_each_positive_has_one():
    with pytest.raises(ValueError, match="each_positive makes groups of one positive"):
        Groups(groups_per_query="each_positive", max_positives=2)


# --- everything at once --------------------------------------------------------------------------

CORPUS = [*DOCS, *(f"z{i}" for i in range(8)), "x1", "x2"]
OTHER = RankedList(["z1", "d05", "z2", "x1", "d01"], [1, 2, 3, 4, 5])
PARTS = {
    "candidates": MixedPart(share=2, sampler=LogRandom(high=15)),
    "other": MixedPart(share=1, sampler=TopK()),
    "corpus": MixedPart(share=1, sampler=Uniform()),
}
SAMPLERS = [
    TopK(count=4),
    LogRandom(count=4, low=2, high=12),
    Uniform(count=5),
    Mixed(count=6, parts=PARTS),
]


@settings(max_examples=300, deadline=None)
@given(
    relevance=st.dictionaries(st.sampled_from([*CORPUS, "gone"]), st.integers(-1, 3), max_size=12),
    positive=st.integers(1, 3),
    policy=st.sampled_from(["inject", "drop", "keep_if_retrieved"]),
    each=st.sampled_from(["one", "each_positive"]),
    sampler=st.sampled_from(SAMPLERS),
    scores=st.dictionaries(st.sampled_from(CORPUS), st.floats(-1, 1)),
    filtered=st.booleans(),
)
def test_no_relevant_document_is_a_negative(
    relevance, positive, policy, each, sampler, scores, filtered
):
    filters = [{"type": "relative_margin"}, {"type": "near_duplicate"}] if filtered else []
    groups = Groups(
        negatives=sampler, positives=policy, groups_per_query=each, filters=filters, seed=3
    )
    material = {
        "others": {"other": OTHER},
        "corpus": CORPUS,
        "scores": scores,
        "text": lambda doc_id: "same text" if doc_id in {"d03", "x2"} else f"text of {doc_id}",
    }
    formed, counts = form_all(groups, relevance, positive=positive, **material)
    relevant = {d for d, value in relevance.items() if value >= positive}
    drops = {n: c for n, c in counts.items() if n.startswith("queries_")}
    assert (len(formed) > 0) + sum(drops.values()) == 1
    if each == "each_positive" and formed and relevant & {one.doc_ids[0] for one in formed}:
        allowed = relevant if policy == "inject" else relevant & set(DOCS)
        assert len(formed) + counts.get("positives_without_group", 0) == len(allowed)
    for one in formed:
        positives = [d for d in one.doc_ids if d in relevant]
        negatives = one.doc_ids[len(positives) :]
        assert one.doc_ids[: len(positives)] == positives and len(positives) <= 1
        assert all(relevance.get(d, 0) <= 0 for d in negatives)
        assert len(set(one.doc_ids)) == len(one.doc_ids) >= 2
        assert 1 <= len(negatives) <= sampler.count
        assert len(one.doc_ids) == len(one.relevance) == len(one.ranks) == len(one.sources)
        for doc_id, rank, source in zip(one.doc_ids, one.ranks, one.sources, strict=True):
            lists = {"candidates": DOCS, "other": OTHER.doc_ids}
            assert lists[source][rank - 1] == doc_id if source in lists else rank == 0
            if filtered and doc_id in negatives and source != "corpus":
                lowest = min(scores[d] for d in positives or relevant if d in scores)
                assert scores[doc_id] <= max(lowest, 0.95 * lowest)
            if filtered and doc_id in negatives and {"d03", "x2"} & relevant:
                assert doc_id not in {"d03", "x2"}


@pytest.mark.parametrize(
    ("fields", "positives", "queries", "chosen"),
    [
        ({}, 1979, 40, "each_positive"),
        ({}, 5000, 40, "each_positive"),
        ({}, 5001, 40, "one"),
        ({}, 40, 40, "one"),  # the same groups, drawn as ever
        ({"max_positives": 2}, 1979, 40, "one"),
        ({"positives": "any"}, 1979, 40, "one"),
        ({"groups_per_query": "one"}, 1979, 40, "one"),
        ({"groups_per_query": "each_positive"}, 40, 40, "each_positive"),
    ],
)
def test_a_small_set_uses_every_positive(fields, positives, queries, chosen):
    assert Groups(**fields).settled(positives, queries).groups_per_query == chosen
