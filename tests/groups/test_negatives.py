"""From candidates, judgements and teacher scores to groups of ids, without a cluster."""

from __future__ import annotations

from functools import partial

import pyarrow as pa
import pytest
from mined_groups import FURTHER, JUDGED, LISTS, STEPS, TEXTS, candidates, teacher

from raypipe.config import ConfigError
from raypipe.datasets.steps import QUERIES_FILE
from raypipe.datasets.text_hashes import HASHES
from raypipe.groups.form import Groups, form_group
from raypipe.groups.negatives import Negatives
from raypipe.groups.samplers import Mixed, MixedPart, RandomWindow, TopK, Uniform
from raypipe.records import QUERIES
from raypipe.tables.plain_text import text_hashes

ONE = partial(Groups, groups_per_query="one")
"""q1 has two positives; most tests look at one group per query."""


def negatives(groups: Groups, **more) -> Negatives:
    return Negatives(STEPS[0], *STEPS, groups, **more)


def only(counts: dict[str, int], *prefixes: str) -> dict[str, int]:
    return {name: n for name, n in counts.items() if n and name.startswith(prefixes)}


def test_rows_by_hand(run, inputs):
    """q1: d5 joins unseen, d2 is neither; q2: d8; q3's only positive has no text."""
    groups = ONE(negatives=TopK(count=2), groups_per_query="each_positive")
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
        "judged_positives": 3,
        "queries_without_positive": 1,
    }


def test_rows_are_those_of_form_group_in_any_chunks(run, inputs):
    groups = ONE(negatives=RandomWindow(count=2), max_positives=2)
    rows, counts = run(negatives(groups), inputs)
    assert [row["query_id"] for row in rows] == ["q1", "q2"]
    for row in rows:
        query_id = row["query_id"]
        judged = {d: r for d, r in JUDGED[query_id].items() if d in TEXTS}
        formed = form_group(groups, query_id, LISTS[query_id], [1, 2, 3, 4], judged, 2)
        assert row == {"query_id": query_id, **vars(formed)}
    assert run(negatives(groups), inputs, size=1) == (rows, counts)


def test_fewer_negatives_are_counted(run, inputs):
    _, counts = run(negatives(ONE(negatives=TopK(count=3))), inputs)
    assert only(counts, "groups", "negatives") == {
        "groups": 2,
        "groups_with_fewer_negatives": 1,  # q1 has d3 and d4 only
        "negatives_from_candidates": 5,
    }


def test_a_random_negative_is_no_missed_positive(run, inputs):
    rows, counts = run(negatives(ONE(negatives=Uniform(count=4))), inputs)
    assert counts["positives_not_retrieved"] == sum(row["ranks"][0] == 0 for row in rows) <= 1
    assert only(counts, "negatives") == {"negatives_from_corpus": 8}
    for row in rows:
        judged = JUDGED[row["query_id"]]
        assert set(row["doc_ids"][1:]) <= {d for d in TEXTS if judged.get(d, 0) <= 0}


def test_counts_where_the_sampler_takes_relevant_documents_too(run, inputs):
    """q1: d1 (2), d2 (1), d3, d4; q2: d5, d2, d1, d8 (2), the relevant one last; q3: d4, d6 (1)."""
    rows, counts = run(negatives(ONE(negatives=TopK(count=4), positives="any")), inputs)
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
    rows, _ = run(negatives(ONE(negatives=TopK(count=4), positives="any")), given)
    assert rows[0]["doc_ids"] == ["d2", "d4"] and rows[0]["relevance"] == [0, 0]


MIXED = Mixed(
    count=4,
    parts={
        "dense": MixedPart(share=1, sampler=RandomWindow(high=3)),
        "candidates": MixedPart(share=1, sampler=TopK()),
    },
)


def test_further_candidates(run, inputs):
    step = negatives(ONE(negatives=MIXED), others=(("dense", STEPS[0]), ("unused", STEPS[1])))
    assert list(step.inputs()) == ["candidates", "queries", "collection", "other_dense", "hashes"]
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
    groups = ONE(negatives=MIXED, filters=[{"type": "near_duplicate"}])
    step = negatives(groups, others=(("dense", STEPS[0]),))
    further = {**inputs, "other_dense": candidates(FURTHER)}
    rows, counts = run(step, further)
    # q1: d7 copies the positive d1; d5 is the other positive of q1, so all is compared with it too
    assert rows[0]["doc_ids"][1:] == ["d6", "d3", "d4"]
    assert counts["removed_by_near_duplicate"] == 1
    uniform = ONE(negatives=Uniform(count=8), filters=[{"type": "near_duplicate"}])
    (first, _), found = run(negatives(uniform), inputs)
    assert set(first["doc_ids"][1:]) == {"d3", "d4", "d6", "d8"}
    assert found["removed_by_near_duplicate"] == 1


# --- copies of what is relevant, and the query itself ---------------------------------------------


@pytest.fixture
def hashed(run, inputs, tmp_path):
    """Runs a step on the small lists with other texts or lists: (negatives by query, counts)."""

    def here(groups: Groups, texts: dict[str, str], lists=None, queries=None):
        hashes = pa.table([text_hashes({**TEXTS, **texts}.values())], schema=HASHES)
        with pa.ipc.new_file(str(tmp_path / "part-00000.arrow"), HASHES) as writer:
            writer.write_table(hashes)
        if queries:
            table = pa.table([list(queries), list(queries.values())], schema=QUERIES)
            with pa.ipc.new_file(str(tmp_path / QUERIES_FILE), QUERIES) as writer:
                writer.write_table(table)
        read = {**inputs, "hashes": inputs["collection"]}
        rows, counts = run(negatives(groups), read | ({"candidates": lists} if lists else {}))
        drawn = {
            row["query_id"]: [
                d for d, r in zip(row["doc_ids"], row["relevance"], strict=True) if r <= 0
            ]
            for row in rows
        }
        return drawn, only(counts, "removed")

    return here


ALL = ONE(negatives=TopK(count=9))
COPY = "removed_as_copies_of_relevant_documents"
ITSELF = "removed_as_the_query_itself"


@pytest.mark.parametrize(
    ("copied", "counted"),
    [
        ("d1", True),  # a positive of the group
        ("d5", True),  # another positive of the query, in no group
        ("d2", True),  # relevant to some degree, though no positive
        ("d6", False),  # of no judgement
    ],
)
@pytest.mark.parametrize("change", [str, str.upper, lambda t: t.replace(" ", "\t ")])
def test_the_text_of_a_relevant_document_is_no_negative(hashed, copied, counted, change):
    drawn, removed = hashed(ALL, {"d3": change(TEXTS[copied])})
    assert drawn["q1"] == (["d4"] if counted else ["d3", "d4"])
    assert removed == ({COPY: 1} if counted else {})


def test_forms_of_a_character_are_no_difference(hashed):
    texts = {"d1": "Caf\u00e9 \uff11", "d3": "cafe\u0301 1"}
    assert hashed(ALL, texts) == ({"q1": ["d4"], "q2": ["d5", "d2", "d1"]}, {COPY: 1})


def test_random_negatives_are_no_copies_either(hashed):
    texts = dict.fromkeys(["d3", "d4", "d6"], TEXTS["d1"])
    drawn, removed = hashed(ONE(negatives=Uniform(count=9)), texts)
    assert drawn["q1"] == ["d8"] and removed[COPY] == 4  # d7 is a copy always


def test_a_query_that_is_a_document_is_no_negative_of_its_own(hashed):
    """By its id, whatever the texts; and by its text, whatever the ids."""
    lists = candidates({"q1": ["d1", "d3", "q1", "d4"], "q2": ["q1", "d2"]})
    drawn, removed = hashed(ALL, {}, lists)
    assert drawn == {"q1": ["d3", "d4"], "q2": ["q1", "d2"]} and removed == {ITSELF: 1}
    asked = {"q2": "two", "q1": f" {TEXTS['d3'].upper()}"}
    drawn, removed = hashed(ALL, {}, queries=asked)
    assert drawn == {"q1": ["d4"], "q2": ["d5", "d2", "d1"]} and removed == {ITSELF: 1}


def test_a_recipe_may_keep_copies(hashed):
    groups = ALL.replace(copies="keep")
    assert "hashes" not in negatives(groups).inputs()
    assert "hashes" not in negatives(ONE(positives="any")).inputs()
    drawn, removed = hashed(ALL.replace(positives="any"), {"d3": TEXTS["d1"]})
    assert drawn["q1"] == ["d3", "d4"] and not removed


SCORES = {
    "q1": {"d1": 0.9, "d2": 0.1, "d3": 0.8, "d4": 0.88, "d5": 0.7},
    "q2": {"d8": 0.9, "d5": float("nan"), "d2": 0.3, "d1": float("inf")},
}
MARGIN = ONE(
    negatives=TopK(count=2),
    filters=[{"type": "absolute_margin", "margin": 0.05}],
    groups_per_query="each_positive",
)


def test_filters_by_teacher_scores(run, inputs):
    step = negatives(MARGIN, scores=STEPS[0])
    assert list(step.inputs()) == ["candidates", "queries", "collection", "hashes", "scores"]
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
        negatives(ONE(negatives=MIXED))
    with pytest.raises(ConfigError, match="compare teacher scores; name a score teacher"):
        negatives(MARGIN)


def test_a_small_set_uses_every_positive(run, inputs, monkeypatch):
    each, counted = run(
        negatives(ONE(negatives=TopK(count=2), groups_per_query="each_positive")), inputs
    )
    rows, counts = run(negatives(Groups(negatives=TopK(count=2))), inputs)
    assert rows == each and counts == {**counted, "auto_chose_each_positive": 1}
    monkeypatch.setattr("raypipe.groups.form.SMALL", 2)  # three positives are many
    assert run(negatives(Groups(negatives=TopK(count=2))), inputs) == run(
        negatives(ONE(negatives=TopK(count=2))), inputs
    )
