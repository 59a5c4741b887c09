"""Ids and numbers as fields of text files have them."""

from __future__ import annotations

import warnings
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.config import ConfigError
from raypipe.tables import fields
from raypipe.tables.fields import INVISIBLE, LONGEST_ID, SeenIds, are_plain, is_plain, real, whole

ODD = [
    "\0",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\x9b",
    "\u200b",
    "\u200e",
    "\u2028",
    "\u2066",
    "\ufeff",
    "\xa0",
    "\u2009",
]


def place_of(text: str) -> str:
    return "here"


def seen_one_by_one(ids: list[str], strict: bool = False) -> Counter[str]:
    counts: Counter[str] = Counter()
    seen = SeenIds(counts, strict)
    for text in ids:
        seen.look(text, place_of)
    return counts


def seen_at_once(column: pa.Array | pa.ChunkedArray) -> Counter[str]:
    counts: Counter[str] = Counter()
    SeenIds(counts).look_at(column, place_of)
    return counts


@pytest.mark.parametrize("mark", ODD, ids=ascii)
def test_an_id_that_looks_like_another_is_counted_and_the_first_is_shown(mark):
    ids = ["d1", f"d{mark}2", "d3", f"{mark}d4"]
    with pytest.warns(UserWarning, match="^here: the id 'd.*2' has a character that") as said:
        assert seen_one_by_one(ids) == {INVISIBLE: 2}
    assert len(said) == 1 and f"U+{ord(mark[0]):04X}" in str(said[0].message)
    assert mark not in str(said[0].message)  # as a terminal would take it
    with pytest.warns(UserWarning, match="here: "):
        assert seen_at_once(pa.array(ids)) == {INVISIBLE: 2}


@pytest.mark.parametrize(
    "text", ["d1", "é", "日本", "http://x/?a=b#c", "<dbpedia:A_B>", "\u2013", "·"]
)
def test_usual_ids_are_nothing_to_speak_of(text):
    assert is_plain(text) and are_plain([text, "x"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert seen_one_by_one([text], strict=True) == {}
        assert seen_at_once(pa.array([text, "x"])) == {}


@pytest.mark.parametrize("mark", ["\0", "\x1b", "\x7f", "\x85", "\u2028"], ids=ascii)
def test_control_characters_of_a_data_set_are_refused(mark):
    with pytest.raises(ConfigError, match=r"^here: expected an id without control char.*rename it"):
        seen_one_by_one([f"a{mark}b"], strict=True)


def test_an_id_of_a_megabyte_is_refused_and_not_shown_whole():
    for column in (pa.array(["a", "x" * (LONGEST_ID + 1), "b"]), pa.array(["x" * 1_000_000])):
        with pytest.raises(ConfigError, match="expected an id of at most 4,096 char") as error:
            seen_at_once(column)
        assert len(str(error.value)) < 200
    assert seen_at_once(pa.array(["x" * LONGEST_ID, "y" * LONGEST_ID])) == {}
    with pytest.raises(ConfigError, match="without half surrogate pairs"):
        seen_one_by_one(["\ud83d"])


@given(
    st.lists(
        st.text(st.sampled_from(["a", "é", "\u2013", "·", "日", *[m[0] for m in ODD]]), max_size=4),
        max_size=9,
    ),
    st.sampled_from([pa.string(), pa.large_string()]),
    st.integers(0, 5),
    st.integers(1, 8),
)
def test_a_column_at_once_equals_its_ids_one_by_one(ids, kind, start, piece):
    column = pa.array(["x\0", *ids], kind)[1:][start:]  # does not begin where its buffer does
    halves = pa.chunked_array([column[:2], column[2:]], kind)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(fields, "_PIECE", piece)
        expected = seen_one_by_one(ids[start:])
        assert seen_at_once(column) == seen_at_once(halves) == expected


@given(st.lists(st.text(max_size=3), max_size=4))
def test_several_ids_are_plain_if_each_is(ids):
    assert are_plain(ids) == all(map(is_plain, ids))


def test_numbers_are_in_the_digits_0_to_9():
    assert [whole(text) for text in ("7", "-07", "+3", " 5 ")] == [7, -7, 3, 5]
    assert [real(text) for text in ("7", "-.5", "1e-3", "inf")] == [7.0, -0.5, 1e-3, float("inf")]
    for text in ("1_0", "٣", "\uff11", "x", "", "9" * 10_000):
        with pytest.raises(ValueError):
            whole(text)
    for text in ("1_0.5", "٣", "1e٣", "x", ""):
        with pytest.raises(ValueError):
            real(text)
