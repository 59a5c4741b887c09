"""What a reasoning model writes before its answer, and what is left of a text without it."""

from __future__ import annotations

import re

THINKING = {
    "<think>": "</think>",
    "[THINK]": "[/THINK]",
    "<|channel|>analysis": "<|channel|>final<|message|>",  # gpt-oss
}
"""Marks around thinking, found in any case: where it begins, and where the answer follows."""

_PAIRS = [
    (
        re.compile(rf"{re.escape(begin)}.*?(?:{re.escape(end)}|\Z)", re.DOTALL | re.IGNORECASE),
        re.compile(re.escape(end), re.IGNORECASE),
    )
    for begin, end in THINKING.items()
]


def cut_in_thinking(text: str) -> bool:
    """Whether the text ends inside its thinking, so that it holds no answer."""
    lower = text.lower()
    marks = ((begin.lower(), end.lower()) for begin, end in THINKING.items())
    return any(lower.rfind(begin) > lower.rfind(end) for begin, end in marks)


def begins_with_thinking(text: str) -> bool:
    """Whether the text's first token is no answer, because the model thinks first."""
    return text.lstrip().lower().startswith(tuple(mark.lower() for mark in THINKING))


def without_thinking(text: str) -> str:
    """The text outside its thinking; also where a template, not the text, began the thinking."""
    for thinking, end in _PAIRS:
        text = thinking.sub("", text)
        text = text[max((mark.end() for mark in end.finditer(text)), default=0) :]
    return text
