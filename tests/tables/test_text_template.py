"""A text made of columns: what is filled in, and what is refused."""

from __future__ import annotations

import pytest

from raypipe.config import ConfigError
from raypipe.tables.text_template import TextTemplate


@pytest.mark.parametrize(
    ("template", "row", "text"),
    [
        ("{title} | {brand}", {"title": " A ", "brand": "b"}, "A | b"),
        ("{title} | {brand}", {"title": None, "brand": "b"}, "| b"),
        ("{title} {brand}", {"title": "", "brand": None}, ""),
        ("body", {"body": "one"}, "one"),
        ("{a} ({n}, {n})", {"a": ["x", None, "y"], "n": 3}, "x y (3, 3)"),
        ("{a}", {"a": "{b}", "b": "never"}, "{b}"),
    ],
)
def test_what_stands_in_the_columns(template, row, text):
    assert TextTemplate(template).fill(row) == text


def test_the_rule_is_that_of_format():
    row = {"title": "A", "brand": "", "my body": "long {text}"}
    template = "{title}: {brand}, {my body}!"
    assert TextTemplate(template).fill(row) == template.format(**row)


@pytest.mark.parametrize("template", ["", " ", "{}", "{a", "a}", "{a} {", "{{a}}"])
def test_braces_that_are_none(template):
    with pytest.raises(ConfigError, match="each brace with its other"):
        TextTemplate(template)


def test_a_value_that_is_no_text():
    with pytest.raises(ValueError, match="expected text or a number"):
        TextTemplate("{a}").fill({"a": {"b": 1}})
