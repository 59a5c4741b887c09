"""What counts as the same text, and the words of scripts without spaces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.tables.plain_text import (
    mostly_unspaced,
    ngrams,
    normalised,
    parted,
    text_hash,
    text_hashes,
    words,
)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("A  b\n", "a b"),
        ("\u00e9", "e\u0301"),  # one character, or a letter and an accent
        ("\uff21\uff11", "a1"),  # full width
        ("Stra\u00dfe", "STRASSE"),
        ("a\u00a0b", "a b"),  # a space that does not break
    ],
)
def test_what_people_see_as_the_same_text(text, same):
    assert normalised(text) == normalised(same)
    assert text_hash(text) == text_hash(same)


@settings(deadline=None)
@given(st.lists(st.text(max_size=6), max_size=8))
def test_hashes_differ_as_the_texts_do(texts):
    hashes = text_hashes(texts)
    assert hashes.dtype == np.uint64 and len(hashes) == len(texts)
    assert len(set(hashes.tolist())) == len(set(map(normalised, texts)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The dog, 3 times", ["the", "dog", "3", "times"]),
        ("\u9ec4\u5c71 is \u9ad8", ["is", "\u9ec4", "\u5c71", "\u9ad8"]),
        ("BERT\u6a21", ["bert", "\u6a21"]),
        ("\ud55c\uad6d \uc0b0", ["\ud55c\uad6d", "\uc0b0"]),  # Korean has spaces
        ("?!", []),
    ],
)
def test_words(text, expected):
    assert sorted(words(text)) == sorted(expected)


@settings(deadline=None)
@given(st.text(alphabet="ab \u9ec4\u5c71\u0e01\u0e34", max_size=20))
def test_parts_are_the_text_again(text):
    assert "".join(spaced + run for spaced, run in parted(text)) == text


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("\u9ec4\u5c71\u9ad8", [*"\u9ec4\u5c71\u9ad8", "\u9ec4\u5c71", "\u5c71\u9ad8"]),
        ("\u9ec4", ["\u9ec4"]),
        ("\u0e01\u0e34\u0e01\u0e01", ["\u0e01\u0e34\u0e01", "\u0e34\u0e01\u0e01"]),  # Thai
        ("\u0e01\u0e34", ["\u0e01\u0e34"]),
    ],
)
def test_neighbouring_characters(run, expected):
    assert ngrams(run) == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["\u9ec4\u5c71\u9ad8", "BERT"], True),
        (["a long English text that names \u9ec4\u5c71 once"], False),
        (["\ud55c\uad6d \uc0b0"], False),
        (["123 ?!"], False),
        ([], False),
    ],
)
def test_which_collections_have_no_spaces(texts, expected):
    assert mostly_unspaced(texts) == expected
