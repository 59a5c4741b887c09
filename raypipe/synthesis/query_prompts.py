"""What a language model is asked for a query, by type, and how its answer is cleaned."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from raypipe.inference.llm.base import Prompt, Sampling
from raypipe.inference.llm.thinking import without_thinking
from raypipe.synthesis.demonstrations import Demonstration
from raypipe.synthesis.generated import KEYWORDS

QueryType = Literal["title", "keywords", "claim", "question", "few_shot_web", "web"]

_WEB = "Write one query that a person would type into a web search engine to find this text."
INSTRUCTIONS: Mapping[str, str] = {
    "title": "Write a short title for this text.",
    "keywords": "Write at most five keywords that a person would search for to find this text.",
    "claim": "Write one short factual claim that this text supports.",
    "question": "Write one question that this text answers.",
    "few_shot_web": _WEB,
    "web": _WEB,
}
"""The request for a query of each type."""
_ALONE = "Answer with it alone, on one line."

_LABEL = re.compile(
    r"^(?:[\"'*_]*(?:the |one |a )?(?:web |search )*(?:query|title|keywords?|claim|question|answer)"
    r"[*_]*\s*:[*_]*|(?:sure[,!.] )?here(?:'s| is| are)\b[^:]{0,80}:)\s*",
    re.IGNORECASE,
)
_LIST_MARK = re.compile(r"^(?:[-*•]|\d{1,2}[.)])\s+")
_REFUSAL = re.compile(r"^(?:i'm sorry|i am sorry|sorry,|as an ai|i cannot|i can't)", re.IGNORECASE)
PHRASE = 3
"""Most words of one keyword."""
_QUOTES = "\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb*_"


def request(
    instruction: str, demonstrations: Sequence[Demonstration], sampling: Sampling
) -> Callable[[Sequence[str]], Prompt]:
    """A function from one passage to its prompt: demonstrations are earlier turns of the chat."""

    def asked(passage: str) -> str:
        return f"{instruction} {_ALONE}\n\n{passage}"

    turns = [
        turn
        for shown in demonstrations
        for turn in (("user", asked(shown.passage)), ("assistant", shown.query))
    ]

    def make(passages: Sequence[str]) -> Prompt:
        (passage,) = passages
        return Prompt((*turns, ("user", asked(passage))), sampling=sampling)

    return make


def cleaned(answer: str, query_type: str, counts: Counter[str]) -> str:
    """The query in an answer; "" if there is none.

    The first line that is not blank counts, or the next one where it only announces the query
    ("Here is a title:"). A mark of a list, a leading label ("Query:") and quotes around it go.

    Args:
        counts: of each repair.
    """
    lines = [line.strip() for line in without_thinking(answer).splitlines() if line.strip()]
    if len(lines) > 1:
        counts["repaired_more_lines"] += 1
        lines = lines[1:] if lines[0].endswith(":") else lines
    line = lines[0] if lines else ""
    for name, pattern in (("list_mark", _LIST_MARK), ("label", _LABEL)):
        if match := pattern.match(line):
            counts[f"repaired_{name}"] += 1
            line = line[match.end() :]
    if (bare := line.strip(_QUOTES + " ")) != line:
        counts["repaired_quotes"] += 1
        line = bare
    return _few_keywords(line, counts) if query_type == "keywords" else " ".join(line.split())


def _few_keywords(line: str, counts: Counter[str]) -> str:
    """At most five keywords, parted by blanks; where commas part them, each may be of three words,
    and longer parts are sentences, which go."""
    parted = [part.split() for part in re.split(r"[,;|]", line) if part.strip()]
    short = [part for part in parted if len(part) <= PHRASE]
    found = short if len(parted) > 1 else [[word] for word in line.split()]
    if len(parted) > len(short) > 0:
        counts["repaired_keywords_with_sentences"] += 1
    if len(found) > KEYWORDS:
        counts["repaired_too_many_keywords"] += 1
    return " ".join(word for part in found[:KEYWORDS] for word in part)


def is_refusal(text: str) -> bool:
    """Whether a text is an apology for a query."""
    return _REFUSAL.match(text) is not None
