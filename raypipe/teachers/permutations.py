"""A language model's answer about a list, such as "[5] > [18] > [2]", as a permutation.

Answers repeat ids, leave some out, invent others, and wrap them in prose. Every repair is counted:
many repairs are the mark of a bad file or model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from raypipe.inference.llm.thinking import without_thinking

# Possessive: what is read once is not tried again, or 200 kB of digits or blanks take seconds.
_NAMED = r"(?:(?:passage|document|doc)\s++)?+"
_ID = r"(?<![0-9])[0-9]++"
_BRACKETED = re.compile(rf"\[\s*+{_NAMED}([0-9]++)\s*+\]", re.IGNORECASE)
_PUNCTUATION = re.compile(r"[\s,;=|]*")
_GREATER = re.compile(r">|&gt;")
LONGEST_ANSWER = 1_000_000
"""Characters of an answer that is read; an order of a thousand ids has 10,000."""
_JOINT = 60
"""Characters between two ids of one chain, at most: "[5] > then passage [3]"."""
_ITEM = r"(?:[-*][ \t]*+)?+[0-9]++[.,;)]?+[ \t]*+"
_PLAIN = (
    re.compile(rf"{_NAMED}{_ID}(?:\s*+(?:>|&gt;)\s*+{_NAMED}[0-9]++)++", re.IGNORECASE),
    re.compile(rf"{_ID}(?:\s*+,\s*+[0-9]++)++"),
    re.compile(rf"^[ \t]*+{_ITEM}(?:\n\s*+{_ITEM})+$", re.M),
)
"""Orders without brackets: joined by > or commas, or one number alone on each line."""
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+")


@dataclass(frozen=True)
class Permutation:
    """An order of n documents, and what had to be repaired to get it."""

    order: list[int]
    """Positions from 0, best first: always a permutation of range(n)."""
    repeats: int
    """Ids that the answer names again; the first mention counts."""
    out_of_range: int
    """Ids below 1 or above n."""
    missing: int
    """Ids that the answer does not name; they follow in the original order."""
    parsable: bool
    """Whether the answer names an id of the list; if not, the order is the original order and
    `missing` is n."""

    @property
    def repaired(self) -> bool:
        """Whether the answer was understood but was not a permutation."""
        return self.parsable and bool(self.repeats or self.out_of_range or self.missing)


def parse_permutation(text: str, n: int) -> Permutation:
    """Read ids that count from 1; "[3] > [1]" of three documents is [2, 0, 1] with 1 missing.

    Thinking is not part of the answer, and one that is longer than `LONGEST_ANSWER` has no order.
    Bracketed numbers are read wherever they stand; where a chain with ">" names every id of the
    answer, the chain alone is read, so that "[3] is off topic: [2] > [1] > [3]" starts with 2.
    Without a bracketed number, at least two plain ones joined by ">" or "," or alone on their lines
    are an order.

    Args:
        n: documents of the list.
    """
    answer = without_thinking(text) if len(text) <= LONGEST_ANSWER else ""
    answer = answer.replace("\r", "\n")
    ids = _bracketed(answer) or _plain(answer, n)
    inside = [i - 1 for i in ids if 1 <= i <= n]
    named = dict.fromkeys(inside)
    order = [*named, *(i for i in range(n) if i not in named)]
    return Permutation(
        order=order,
        repeats=len(inside) - len(named),
        out_of_range=len(ids) - len(inside),
        missing=n - len(named),
        parsable=bool(named),
    )


def _bracketed(answer: str) -> list[int]:
    """The chain that names every bracketed id, the last of several; otherwise all in order."""
    marks = list(_BRACKETED.finditer(answer))
    ids = [_number(mark[1]) for mark in marks]
    if not ids:
        return []
    chains, joined = [[ids[0]]], [False]
    for before, mark, number in zip(marks, marks[1:], ids[1:], strict=False):
        between = answer[before.end() : mark.start()]
        greater = bool(_GREATER.search(between)) and len(between) <= _JOINT and "." not in between
        if greater or _PUNCTUATION.fullmatch(between):
            chains[-1].append(number)
            joined[-1] |= greater
        else:
            chains.append([number])
            joined.append(False)
    wanted = set(ids)
    whole = [c for c, yes in zip(chains, joined, strict=True) if yes and set(c) == wanted]
    return whole[-1] if whole else ids


def _plain(answer: str, n: int) -> list[int]:
    """The longest order without brackets, the last of several; "1,234" alone is a number.

    Fewer than two different ids of the list are prose, not an order (one, if n is 1).
    """
    for pattern in _PLAIN:
        texts = [m[0] for m in pattern.finditer(answer) if not _THOUSANDS.fullmatch(m[0])]
        orders = [[_number(d) for d in re.findall("[0-9]+", text)] for text in texts]
        orders = [o for o in orders if len({i for i in o if 1 <= i <= n}) >= min(2, n)]
        if orders:
            return max(reversed(orders), key=len)
    return []


def _number(digits: str) -> int:
    """0, which no list has, for more digits than any list needs (int() refuses thousands)."""
    return int(digits) if len(digits) <= 9 else 0
