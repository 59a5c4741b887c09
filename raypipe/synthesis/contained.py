"""Passages that say what another says: found as CADET finds them (Tamber et al. 2025)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

NEIGHBOURS = 9
"""How many of the next texts in a sorted list may contain a text."""
SHORTEST = 10
"""Characters of a plain text below which a passage says nothing."""
_NO_LETTERS = re.compile(r"[\W\d_]+")


def plain_form(text: str) -> str:
    """A text without what copies differ in: accents, case, digits, punctuation, white space.

    "Émile's  3rd book" is "emile s rd book".
    """
    compatible = text if text.isascii() else unicodedata.normalize("NFKD", text)
    letters = "".join(c for c in compatible if not unicodedata.combining(c))
    return _NO_LETTERS.sub(" ", letters.casefold()).strip()


def contained(forms: Sequence[str]) -> set[int]:
    """The positions of the texts that another one contains, of equal texts all but the first.

    A text is looked for in the next `NEIGHBOURS` of the list sorted by text, which finds texts that
    begin alike, then of those left in the list sorted by reversed text, which finds texts that end
    alike. Memory: twice the texts.
    """
    first = _contained_in_next(range(len(forms)), forms, forms)
    left = [i for i in range(len(forms)) if i not in first]
    return first | _contained_in_next(left, [form[::-1] for form in forms], forms)


def _contained_in_next(
    positions: Sequence[int], keys: Sequence[str], forms: Sequence[str]
) -> set[int]:
    order = sorted(positions, key=lambda i: (keys[i], -i))  # the first of equal texts is the last
    return {
        i
        for at, i in enumerate(order)
        if any(forms[i] in forms[j] for j in order[at + 1 : at + 1 + NEIGHBOURS])
    }
