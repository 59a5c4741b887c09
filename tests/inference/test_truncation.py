"""What max_p reads of a document: windows that cover it, and nothing new for short ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from raypipe.config import Config, ConfigError
from raypipe.inference.truncation import Budgets, LongestFirst, MaxP, Truncation, expand
from raypipe.recipe.reading import validate

LIMITS = st.none() | st.integers(1, 6)


@st.composite
def max_ps(draw, limits=LIMITS) -> MaxP:
    length = draw(st.integers(1, 20))
    return MaxP(
        query=draw(st.integers(1, 12)),
        length=length,
        stride=draw(st.integers(1, length)),
        max_passages=draw(limits),
    )


@pytest.mark.parametrize(
    ("n_doc", "windows"),
    [
        (0, [(0, 0)]),
        (1, [(0, 1)]),
        (6, [(0, 6)]),
        (7, [(0, 6), (4, 7)]),
        (10, [(0, 6), (4, 10)]),
        (11, [(0, 6), (4, 10), (8, 11)]),
        (14, [(0, 6), (4, 10), (8, 14)]),
        (15, [(0, 6), (4, 10), (8, 14)]),  # the fourth, of tokens 12 to 15, is over the limit
    ],
)
def test_passages_by_hand(n_doc, windows):
    cut = MaxP(query=3, length=6, stride=4, max_passages=3)
    assert cut.passages(2, n_doc, 3) == [(2, *window) for window in windows]
    assert cut.passages(9, n_doc, 3) == [(3, *window) for window in windows]


@given(max_ps(), st.integers(0, 20), st.integers(0, 200))
def test_passages_cover_a_document_and_none_lies_in_another(cut, n_query, n_doc):
    found = cut.passages(n_query, n_doc, 3)
    assert {query for query, _, _ in found} == {min(n_query, cut.query)}
    everything = cut.replace(max_passages=None).passages(n_query, n_doc, 3)
    read = {token for _, start, stop in everything for token in range(start, stop)}
    assert read == set(range(n_doc))
    assert found == everything[: cut.max_passages]
    assert all(stop - start == cut.length for _, start, stop in everything[:-1])
    assert len(everything) == 1 or 0 < everything[-1][2] - everything[-1][1] <= cut.length
    for (_, start, stop), (_, later, end) in pairwise(everything):
        assert later == start + cut.stride <= stop < end


@given(max_ps(limits=st.none()), st.integers(1, 80))
def test_passages_are_the_overflow_of_hugging_face_tokenizers(cut, n_doc):
    inner = Tokenizer(models.WordLevel({str(i): i for i in range(n_doc)}, unk_token="0"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    encoded = inner.encode(" ".join(map(str, range(n_doc))))
    encoded.truncate(cut.length, stride=cut.length - cut.stride)
    theirs = [one.ids for one in (encoded, *encoded.overflowing)]
    assert [list(range(a, b)) for _, a, b in cut.passages(1, n_doc, 3)] == theirs


@given(max_ps(), st.integers(0, 20), st.integers(0, 60), st.integers(0, 4))
def test_what_fits_one_passage_is_read_as_budgets_read_it(cut, n_query, n_doc, n_special):
    budgets = Budgets(query=cut.query, doc=cut.length)
    same = cut if n_doc <= cut.length else cut.replace(max_passages=1)
    assert same.passages(n_query, n_doc, n_special) == budgets.passages(n_query, n_doc, n_special)


@given(
    st.sampled_from([LongestFirst(max_length=9), LongestFirst(), Budgets(query=3, doc=5)]),
    st.integers(0, 300),
    st.integers(0, 300),
    st.integers(0, 4),
)
def test_the_other_truncations_read_the_beginning_alone(cut, n_query, n_doc, n_special):
    query, doc = cut.cut(n_query, n_doc, n_special)
    assert cut.passages(n_query, n_doc, n_special) == [(query, 0, doc)]


@given(max_ps(), st.integers(0, 40), st.integers(0, 200))
def test_no_passage_is_longer_than_the_longest(cut, n_query, n_doc):
    assert cut.longest == cut.query + cut.length + 4
    sizes = [q + stop - start + 4 for q, start, stop in cut.passages(n_query, n_doc, 4)]
    assert max(sizes) <= cut.longest


def test_expand_by_hand():
    query, short, long = np.arange(3), np.arange(10, 12), np.arange(20, 27)
    flat, counts = expand(
        [(query, short), (query, long), (query[:1], short)], MaxP(query=2, length=4, stride=3), 3
    )
    assert counts == [1, 2, 1]
    assert [(q.tolist(), d.tolist()) for q, d in flat] == [
        ([0, 1], [10, 11]),
        ([0, 1], [20, 21, 22, 23]),
        ([0, 1], [23, 24, 25, 26]),
        ([0], [10, 11]),
    ]
    assert expand([], MaxP(), 3) == ([], [])


class Reads(Config):
    truncation: Truncation = LongestFirst()


def test_max_p_in_a_recipe():
    read = validate(Reads, {"truncation": {"type": "max_p", "length": 100, "stride": 50}}, "here")
    assert read.truncation == MaxP(query=64, length=100, stride=50, max_passages=8)
    with pytest.raises(ConfigError, match=r"stride=193 is more than length=192.*never be read"):
        validate(Reads, {"truncation": {"type": "max_p", "stride": 193}}, "here")
    for wrong in ({"max_passages": 0}, {"length": 0}, {"query": 0}, {"stride": 0}):
        with pytest.raises(ConfigError, match="greater than or equal to"):
            validate(Reads, {"truncation": {"type": "max_p", **wrong}}, "here")
    assert (
        len({Reads().semantic()["truncation"]["class"], read.semantic()["truncation"]["class"]})
        == 2
    )
