"""From candidates, judgements and teacher scores to groups of ids, without a cluster."""

from __future__ import annotations

import pytest
from mined_groups import FURTHER, JUDGED, LISTS, STEPS, TEXTS, candidates, teacher

from raypipe.config import ConfigError
from raypipe.groups.form import Groups, form_group
from raypipe.groups.negatives import Negatives
from raypipe.groups.samplers import Mixed, MixedPart, RandomWindow, TopK, Uniform


def negatives(groups: Groups, **more) -> Negatives:
    return Negatives(STEPS[0], *STEPS, groups, **more)


def only(counts: dict[str, int], *prefixes: str) -> dict[str, int]:
    return {name: n for name, n in counts.items() if n and name.startswith(prefixes)}


def test_rows_by_hand(run, inputs):
    """q1: d5 joins unseen, d2 is neither; q2: d8; q3's only positive has no text."""
    groups = Groups(negatives=TopK(count=2), groups_per_query="each_positive")
    rows, counts = run(negatives(groups), inputs)
    assert rows == [
        {
            "query_id": "q1",
            "doc_ids": ["d1", "d3", "d4"],
            "relevance": [2, 0, 0],
            "ranks": [1, 3, 4],
            "sources": ["candidates"] * 3,
        },
        {
            "query_id": "q1",
            "doc_ids": ["d5", "d3", "d4"],
            "relevance": [2, 0, 0],
            "ranks": [0, 3, 4],
            "sources": ["qrels", "candidates", "candidates"],
        },
        {
            "query_id": "q2",
            "doc_ids": ["d8", "d5", "d2"],
            "relevance": [2, 0, 0],
            "ranks": [4, 1, 2],
            "sources": ["candidates"] * 3,
        },
    ]
    assert counts == {
        "rows": 3,
        "queries": 2,
        "groups": 3,
        "pairs": 9,
        "positives": 3,
        "positives_not_retrieved": 1,
        "groups_with_fewer_negatives": 0,
        "negatives_from_candidates": 6,
        "judged_documents_without_text": 2,
        "queries_without_positive": 1,
    }


def test_rows_are_those_of_form_group_in_any_chunks(run, inputs):
    groups = Groups(negatives=RandomWindow(count=2), max_positives=2)
    rows, counts = run(negatives(groups), inputs)
    assert [row["query_id"] for row in rows] == ["q1", "q2"]
    for row in rows:
        query_id = row["query_id"]
        judged = {d: r for d, r in JUDGED[query_id].items() if d in TEXTS}
        formed = form_group(groups, query_id, LISTS[query_id], [1, 2, 3, 4], judged, 2)
        assert row == {"query_id": query_id, **vars(formed)}
    assert run(negatives(groups), inputs, size=1) == (rows, counts)


def test_fewer_negatives_are_counted(run, inputs):
    _, counts = run(negatives(Groups(negatives=TopK(count=3))), inputs)
    assert only(counts, "groups", "negatives") == {
        "groups": 2,
        "groups_with_fewer_negatives": 1,  # q1 has d3 and d4 only
        "negatives_from_candidates": 5,
    }


def test_a_random_negative_is_no_missed_positive(run, inputs):
    rows, counts = run(negatives(Groups(negatives=Uniform(count=4))), inputs)
    assert counts["positives_not_retrieved"] == sum(row["ranks"][0] == 0 for row in rows) <= 1
    assert only(counts, "negatives") == {"negatives_from_corpus": 8}
    for row in rows:
        judged = JUDGED[row["query_id"]]
        assert set(row["doc_ids"][1:]) <= {d for d in TEXTS if judged.get(d, 0) <= 0}


def test_counts_where_the_sampler_takes_relevant_documents_too(run, inputs):
    """q1: d1 (2), d2 (1), d3, d4; q2: d5, d2, d1, d8 (2), the relevant one last; q3: d4, d6 (1)."""
    rows, counts = run(negatives(Groups(negatives=TopK(count=4), positives="any")), inputs)
    assert [row["relevance"] for row in rows] == [[2, 1, 0, 0], [0, 0, 0, 2], [0, 1]]
    assert only(counts, "groups", "pairs", "positives", "negatives") == {
        "groups": 3,
        "groups_with_fewer_negatives": 1,  # q3 alone: the other two have the four they asked for
        "pairs": 10,
        "positives": 2,  # 2 is what counts as positive here
        "negatives_from_candidates": 6,
    }


def test_the_list_of_an_unjudged_query_is_a_group_like_any_other(run, inputs):
    given = {**inputs, "candidates": candidates({"q8": ["d2", "d4"]})}
    rows, _ = run(negatives(Groups(negatives=TopK(count=4), positives="any")), given)
    assert rows[0]["doc_ids"] == ["d2", "d4"] and rows[0]["relevance"] == [0, 0]


MIXED = Mixed(
    count=4,
    parts={
        "dense": MixedPart(share=1, sampler=RandomWindow(high=3)),
        "candidates": MixedPart(share=1, sampler=TopK()),
    },
)


def test_further_candidates(run, inputs):
    step = negatives(Groups(negatives=MIXED), others=(("dense", STEPS[0]), ("unused", STEPS[1])))
    assert list(step.inputs()) == ["candidates", "queries", "collection", "other_dense"]
    rows, counts = run(step, {**inputs, "other_dense": candidates(FURTHER)})
    assert rows[0]["doc_ids"][1:] == ["d7", "d6", "d3", "d4"]
    assert rows[0]["ranks"][1:] == [1, 2, 3, 4]
    assert rows[0]["sources"][1:] == ["dense", "dense", "candidates", "candidates"]
    assert rows[1]["doc_ids"] == ["d8", "d5", "d2", "d1"]
    assert only(counts, "negatives", "queries_without_dense") == {
        "negatives_from_dense": 2,
        "negatives_from_candidates": 5,
        "negatives_moved_between_parts": 1,
        "queries_without_dense": 2,  # q2 has an empty list, q3 none
    }


def test_a_near_copy_of_a_positive_is_no_negative(run, inputs):
    groups = Groups(negatives=MIXED, filters=[{"type": "near_duplicate"}])
    step = negatives(groups, others=(("dense", STEPS[0]),))
    further = {**inputs, "other_dense": candidates(FURTHER)}
    rows, counts = run(step, further)
    # q1: d7 copies the positive d1; d5 is the other positive of q1, so all is compared with it too
    assert rows[0]["doc_ids"][1:] == ["d6", "d3", "d4"]
    assert counts["removed_by_near_duplicate"] == 1
    uniform = Groups(negatives=Uniform(count=8), filters=[{"type": "near_duplicate"}])
    (first, _), found = run(negatives(uniform), inputs)
    assert set(first["doc_ids"][1:]) == {"d3", "d4", "d6", "d8"}
    assert found["removed_by_near_duplicate"] == 1


SCORES = {
    "q1": {"d1": 0.9, "d2": 0.1, "d3": 0.8, "d4": 0.88, "d5": 0.7},
    "q2": {"d8": 0.9, "d5": float("nan"), "d2": 0.3, "d1": float("inf")},
}
MARGIN = Groups(
    negatives=TopK(count=2),
    filters=[{"type": "absolute_margin", "margin": 0.05}],
    groups_per_query="each_positive",
)


def test_filters_by_teacher_scores(run, inputs):
    step = negatives(MARGIN, scores=STEPS[0])
    assert list(step.inputs()) == ["candidates", "queries", "collection", "scores"]
    rows, counts = run(step, {**inputs, "scores": teacher(SCORES)})
    assert [row["doc_ids"] for row in rows] == [["d1", "d3"], ["d8", "d2"]]
    assert only(
        counts, "removed", "teacher", "candidates_", "positives_w", "queries", "groups"
    ) == {
        "queries": 2,
        "groups": 2,
        "groups_with_fewer_negatives": 2,
        "removed_by_absolute_margin": 3,  # d4 below d1; d3 and d4 below d5, which has no group
        "positives_without_group": 1,
        "teacher_values_not_finite": 2,
        "candidates_without_teacher_score": 2,
        "queries_without_positive": 1,
    }


def test_a_teacher_without_a_finite_value(run, inputs):
    nothing = {"q1": {"d1": float("nan"), "d3": None}, "q2": {"d8": float("-inf")}}
    given = {**inputs, "scores": teacher(nothing)}
    with pytest.raises(ConfigError, match="expected finite values, found 3 of which none is"):
        run(negatives(MARGIN, scores=STEPS[0]), given)


def test_a_teacher_of_other_queries(run, inputs):
    given = {**inputs, "scores": teacher({"other": {"d1": 1.0}})}
    with pytest.raises(ConfigError, match="'queries_without_positive_score': 2"):
        run(negatives(MARGIN, scores=STEPS[0]), given)


def test_what_a_plan_lacks_is_refused_before_work():
    with pytest.raises(ConfigError, match=r"for the parts \['dense'\], found none"):
        negatives(Groups(negatives=MIXED))
    with pytest.raises(ConfigError, match="compare teacher scores; name a score teacher"):
        negatives(MARGIN)
