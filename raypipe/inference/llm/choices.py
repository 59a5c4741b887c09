"""Questions with fixed answers: which one a model gave, by log-probability or in words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

CHOICE_TOKENS = 8
"""New tokens for an answer of one word, for engines that give text: "Passage A"."""


def choice_logprobs(
    top: Iterable[tuple[str, float]], choices: Sequence[str]
) -> dict[str, float] | None:
    """Log-probability of each choice as the next token, from the most likely first tokens.

    Tokens count without the blanks around them, in their case: "Yes" is the sum of "Yes" and
    " Yes". A choice that is not among them gets the lowest there, which is an upper bound of what
    one token of it can have. None if no choice is among them.
    """
    pairs = [(token.strip(" \t\r\n▁Ġ"), value) for token, value in top]
    found = {c: [value for token, value in pairs if token == c] for c in choices}
    if not any(found.values()):
        return None
    lowest = min(value for _, value in pairs)
    return {c: _log_sum(values) if values else lowest for c, values in found.items()}


def _log_sum(values: list[float]) -> float:
    high = max(values)
    return high + math.log(sum(math.exp(value - high) for value in values))


def chosen(text: str, choices: Sequence[str]) -> str | None:
    """The choice that a text answer names first, or None; thinking is not part of the answer.

    Words are found in any case; of letters only the capital, since "a" is an article.
    """
    if "<think>" in text and "</think>" not in text:
        return None
    text = text.rpartition("</think>")[2]
    places = {}
    for choice in choices:
        flags = re.IGNORECASE if len(choice) > 1 else re.NOFLAG
        if match := re.search(rf"\b{re.escape(choice)}\b", text, flags):
            places[choice] = match.start()
    return min(places, key=lambda choice: places[choice]) if places else None
