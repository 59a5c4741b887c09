"""False-negative filters: margins worked by hand, near-copies by their shingles."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from raypipe.groups.filters import (
    AbsoluteMargin,
    Evidence,
    Filter,
    MaxScore,
    NearDuplicate,
    RelativeMargin,
    Screen,
    jaccard,
    shingles,
)
from raypipe.groups.form import Formed, Groups, Material, form_group
from raypipe.groups.pool import Chosen
from raypipe.groups.samplers import Mixed, MixedPart, TopK, Uniform

SCORES = {"p": 0.8, "p2": 0.6, "a": 0.8, "b": 0.76, "c": 0.75, "d": 0.5, "e": -0.2, "n": math.nan}


def evidence(positives=("p",), relevant=("p",), scores=SCORES, texts=None) -> Evidence:
    return Evidence(
        list(positives),
        list(relevant),
        lambda doc_id: scores.get(doc_id, math.nan),
        lambda doc_id: (texts or {})[doc_id],
    )


def kept(one, among="abcde", **known) -> str:
    keeps = one.build(evidence(**known))
    return "".join(doc_id for doc_id in among if keeps(doc_id))


# --- teacher scores ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (AbsoluteMargin(margin=0), "abcde"),  # a scores as much as the positive
        (AbsoluteMargin(margin=0.03), "bcde"),  # .77
        (AbsoluteMargin(margin=0.25), "de"),  # .55
        (AbsoluteMargin(margin=1.5), ""),
        (RelativeMargin(), "bcde"),  # .95 of .8 is .76
        (RelativeMargin(share=0.94), "cde"),  # .752
        (RelativeMargin(share=0.5), "e"),  # .4
        (RelativeMargin(share=1), "abcde"),
        (MaxScore(score=0.75), "cde"),
        (MaxScore(score=-0.3), ""),
    ],
)
def test_margins(one, expected):
    assert kept(one) == expected


def test_the_lowest_positive_of_the_group_decides():
    both = {"positives": ("p", "p2", "unknown"), "relevant": ("p", "p2", "unknown")}
    assert kept(AbsoluteMargin(margin=0.1), **both) == "de"  # at most .5
    assert kept(RelativeMargin(share=0.9), **both) == "de"  # at most .54
    assert kept(RelativeMargin(share=0.9), relevant=("p", "p2")) == "de"  # .72
    assert kept(RelativeMargin(share=0.94), relevant=("p", "p2")) == "cde"


@pytest.mark.parametrize(("positive", "expected"), [(0.0, "yz"), (-0.5, "z")])
def test_a_share_of_a_score_that_is_not_positive(positive, expected):
    """.95 * -.5 would be above the positive itself."""
    scores = {"p": positive, "w": 0.1, "x": 0.0, "y": -0.5, "z": -0.6}
    assert kept(RelativeMargin(), "wxyz", scores=scores) == expected


@given(st.floats(-1, 1), st.floats(0.01, 1), st.lists(st.floats(-1, 1), max_size=9))
def test_relative_never_keeps_what_is_above_the_positive(positive, share, others):
    scores = {"p": positive, **{str(i): value for i, value in enumerate(others)}}
    keeps = RelativeMargin(share=share).build(evidence(scores=scores))
    for doc_id in map(str, range(len(others))):
        expected = scores[doc_id] <= share * positive if positive > 0 else scores[doc_id] < positive
        assert keeps(doc_id) == expected
        assert not keeps(doc_id) or scores[doc_id] <= positive


def test_what_filters_need():
    margins = (AbsoluteMargin(margin=0.1), RelativeMargin())
    assert all(one.needs_scores and one.needs_reference for one in margins)
    assert MaxScore(score=1).needs_scores and not MaxScore(score=1).needs_reference
    assert not NearDuplicate().needs_scores
    assert Groups(filters=[{"type": "max_score", "score": 1}]).filters_need_scores
    assert not Groups(filters=[NearDuplicate()]).filters_need_scores
    assert not Groups().filters_need_scores


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "absolute_margin"}, "Field required"),
        ({"type": "absolute_margin", "margin": -0.1}, "greater than or equal to 0"),
        ({"type": "relative_margin", "share": 1.1}, "less than or equal to 1"),
        ({"type": "max_score", "score": math.nan}, "finite"),
        ({"type": "near_duplicate", "shingle": 0}, "greater than or equal to 1"),
        ({"type": "near_duplicate", "similarity": 0}, "greater than 0"),
    ],
)
def test_filters_that_mean_nothing(fields, message):
    with pytest.raises(ValueError, match=message):
        TypeAdapter(Filter).validate_python(fields)


# --- texts ---------------------------------------------------------------------------------------


def test_shingles_by_hand():
    assert shingles("To be, or NOT to be!", 5) == {
        ("to", "be", "or", "not", "to"),
        ("be", "or", "not", "to", "be"),
    }
    assert shingles("To be", 5) == {("to", "be")}
    assert shingles("one two three four five", 5) == {("one", "two", "three", "four", "five")}
    assert shingles("?! -", 5) == set()
    assert jaccard({("a",), ("b",), ("c",)}, {("b",), ("c",), ("d",)}) == 0.5
    assert jaccard(set(), set()) == 0


WORDS = "the quick brown fox jumps over the lazy dog while it rains cats and birds"


@pytest.mark.parametrize(
    ("text", "similarity", "copy"),
    [
        (WORDS, 0.8, True),
        (WORDS.upper().replace(" ", "\n "), 1, True),
        (WORDS.replace(" ", ", "), 1, True),  # punctuation is no word
        # 15 words make 11 shingles; one word more makes 12, 11 of them shared: 11/12 = .917
        (WORDS + " today", 0.9, True),
        (WORDS + " today", 0.92, False),
        # another last word: 10 shared of 12, .833
        (WORDS.replace("birds", "dogs"), 0.83, True),
        (WORDS.replace("birds", "dogs"), 0.84, False),
        # a word in the middle is in 5 shingles: 6 shared of 16
        (WORDS.replace("dog", "cow"), 0.375, True),
        (WORDS.replace("dog", "cow"), 0.38, False),
        ("something else", 0.01, False),
        ("", 0.01, False),
    ],
)
def test_near_copies(text, similarity, copy):
    texts = {"p": WORDS, "x": text}
    keeps = NearDuplicate(similarity=similarity).build(evidence(texts=texts))
    assert keeps("x") != copy


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("黄山是中国安徽省的一座名山海拔一千八百六十四米", "四"),
        ("東京タワーは東京都港区にある電波塔で高さは三百三十三メートル", "ル"),
        ("ภูเขาไฟฟูจิเป็นภูเขาที่สูงที่สุดในประเทศญี่ปุ่นและมีชื่อเสียง", "ง"),
    ],
)
def test_near_copies_in_scripts_without_spaces(text, other):
    """One character more, at the end, is a near-copy; half of the text is none."""
    texts = {"p": text, "x": text + other, "y": text[: len(text) // 2], "z": text[::-1]}
    keeps = NearDuplicate().build(evidence(texts=texts))
    assert [keeps(doc_id) for doc_id in "xyz"] == [False, True, True]


def test_texts_without_words_are_copies_only_if_equal():
    texts = {"p": "?! ?", "x": "?!  ?", "y": "!!"}
    keeps = NearDuplicate(similarity=0.01).build(evidence(texts=texts))
    assert (keeps("x"), keeps("y")) == (False, True)


def test_copies_of_any_positive_of_the_query_go():
    """Also of a positive that is not in this group: it would be a false negative all the same."""
    texts = {"p": "first text", "other": "second text", "x": "Second  text", "y": "third text"}
    keeps = NearDuplicate().build(evidence(relevant=("p", "other"), texts=texts))
    assert (keeps("x"), keeps("y")) == (False, True)


# --- applied -------------------------------------------------------------------------------------


def test_every_removal_is_counted_once_by_the_first_filter():
    screen = Screen([RelativeMargin(), MaxScore(score=0.6)], evidence())
    drawn = [Chosen(doc_id, 1, "candidates") for doc_id in "abcdenz"]
    assert [screen(one) for one in drawn * 2] == [False, False, False, True, True, False, False] * 2
    assert screen.removed == {
        "removed_by_relative_margin": 1,  # a
        "removed_by_max_score": 2,  # b, c
        "candidates_without_teacher_score": 2,  # NaN, and one that the teacher never saw
    }


def test_a_random_document_needs_no_score():
    screen = Screen([AbsoluteMargin(margin=0.1)], evidence())
    assert screen(Chosen("z", 0, "corpus"))
    assert not screen(Chosen("a", 0, "corpus"))  # the teacher knows it
    assert screen.removed == {"removed_by_absolute_margin": 1}


def grouped(groups: Groups, relevance: dict[str, int], **material):
    counts: Counter[str] = Counter()
    formed = form_group(
        groups,
        "q",
        [*"abcden"],
        [1, 2, 3, 4, 5, 6],
        relevance,
        1,
        material=Material(**{"scores": SCORES, **material}),
        counts=counts,
    )
    return formed, dict(counts)


def test_a_group_behind_a_filter():
    groups = Groups(negatives=TopK(count=2), filters=[AbsoluteMargin(margin=0.045)])
    formed, counts = grouped(groups, {"p": 1})
    assert formed == Formed(["p", "c", "d"], [1, 0, 0], [0, 3, 4], ["qrels"] + ["candidates"] * 2)
    assert counts == {"removed_by_absolute_margin": 2}  # a and b are above .755


def test_only_chosen_positives_set_the_margin():
    groups = Groups(
        negatives=TopK(count=2), filters=[AbsoluteMargin(margin=0.045)], max_positives=2
    )
    formed, _ = grouped(groups, {"p": 1, "p2": 1})
    assert formed.doc_ids == ["p", "p2", "d", "e"]
    alone = groups.replace(max_positives=1)
    assert grouped(alone, {"p": 2, "p2": 0})[0].doc_ids == ["p", "c", "d"]


def test_a_group_without_positives_is_compared_with_those_of_the_query():
    groups = Groups(
        negatives=TopK(count=2),
        filters=[AbsoluteMargin(margin=0.05)],
        positives="keep_if_retrieved",
    )
    formed, _ = grouped(groups, {"p": 1, "p2": 1})
    assert formed.doc_ids == ["d", "e"]


def test_a_positive_without_a_score():
    groups = Groups(negatives=TopK(count=2), filters=[RelativeMargin()])
    assert grouped(groups, {"unknown": 1})[0] == "queries_without_positive_score"
    capped = groups.replace(filters=(MaxScore(score=0.75),))
    assert grouped(capped, {"unknown": 1})[0].doc_ids == ["unknown", "c", "d"]


def test_filters_that_leave_nothing():
    groups = Groups(negatives=TopK(count=2), filters=[MaxScore(score=-1)])
    formed, counts = grouped(groups, {"p": 1})
    assert formed == "queries_without_negatives"
    assert counts == {"removed_by_max_score": 5, "candidates_without_teacher_score": 1}


def test_what_a_filter_takes_another_part_gives():
    parts = {
        "candidates": MixedPart(share=1, sampler=TopK()),
        "corpus": MixedPart(share=1, sampler=Uniform()),
    }
    groups = Groups(negatives=Mixed(count=4, parts=parts), filters=[MaxScore(score=-0.1)])
    formed, counts = grouped(groups, {"p": 1}, corpus=["p", "z1", "z2", "z3", "a"])
    assert formed.sources == ["qrels", "candidates", "corpus", "corpus", "corpus"]
    assert formed.doc_ids[:2] == ["p", "e"] and set(formed.doc_ids[2:]) == {"z1", "z2", "z3"}
    assert counts["negatives_moved_between_parts"] == 1 and counts["removed_by_max_score"] == 4


def test_what_is_missing_is_an_error():
    with pytest.raises(ValueError, match="compare teacher scores, and there are none"):
        grouped(Groups(filters=[MaxScore(score=1)]), {"p": 1}, scores=None)
    with pytest.raises(ValueError, match="near_duplicate compares texts"):
        grouped(Groups(filters=[NearDuplicate()]), {"p": 1})
