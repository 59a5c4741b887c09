"""JSON that says two things, or is nested until a reader gives up."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.config import ConfigError
from raypipe.storage import files
from raypipe.tables.json_text import json_lines, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=9,
)


@given(VALUES)
def test_what_json_reads_is_read_alike(value):
    text = json.dumps(value)
    assert parse_json(text) == parse_json(text.encode()) == parse_json(text, repeats=True) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"_id": "a", "_id": "b"}', "the key '_id' twice in one object"),
        ('{"_id" : "a", "\\u005fid": "b"}', "the key '_id' twice in one object"),
        ('[{"x": {"k": 1, "k": 1}}]', "the key 'k' twice in one object"),
        ("[" * 100_000, "too many levels of lists and objects"),
        ('{"a":' * 100_000, "too many levels of lists and objects"),
        ("9" * 10_000, "a number of thousands of digits"),
        ("{", "Expecting property name"),
        (b'"\xff"', "utf-8"),
    ],
    ids=["twice", "escaped", "inside", "lists", "objects", "digits", "cut", "latin"],
)
def test_what_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_the_last_of_equal_keys_counts_where_others_decide():
    assert parse_json('{"a": 1, "a": 2}', repeats=True) == {"a": 2}
    assert parse_json(b"\xef\xbb\xbf7") == 7


def test_lines_are_numbered_and_of_bounded_length(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    path.write_text('1\n\n{"a": 2}\n[')
    lines = json_lines(path)
    assert [next(lines), next(lines)] == [(1, 1), (3, {"a": 2})]
    with pytest.raises(ConfigError, match=r"x\.jsonl, line 4: expected JSON, found Expecting"):
        next(lines)
    monkeypatch.setattr(files, "LONGEST_LINE", 8)
    path.write_text('1\n"12345"\n"123456789"\n')
    lines = json_lines(path)
    assert [next(lines), next(lines)] == [(1, 1), (2, "12345")]
    with pytest.raises(ConfigError, match=r"x\.jsonl, line 3: expected a line of at most 8 bytes"):
        next(lines)
