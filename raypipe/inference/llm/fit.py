"""Passages cut so that a prompt and its answer fit into the model's context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from raypipe.inference.llm.base import Prompt

MESSAGE_TOKENS = 8
"""Room for the marks of a chat template around one message; five are usual."""
TEMPLATE_TOKENS = 40
"""Room for what a template adds once: a date, its own system message."""
FEWEST_TOKENS = 8
"""A passage with fewer says nothing: the prompt does not fit."""


class Fitter:
    """Fills a prompt with passages. Lengths of texts are remembered: one `Fitter` per chunk.

    Args:
        count: tokens of a text.
        context_tokens: of prompt and answer together.
        counts: where "passages" shown and "passages_cut" are counted.
    """

    def __init__(
        self, count: Callable[[str], int], context_tokens: int, counts: Counter[str]
    ) -> None:
        self.context_tokens = context_tokens
        self.counts = counts
        self._count = count
        self._lengths: dict[str, int] = {}
        self._cuts: dict[tuple[str, int], str] = {}

    def __call__(
        self,
        make: Callable[[Sequence[str]], Prompt],
        passages: Sequence[str],
        max_new_tokens: int,
    ) -> Prompt | None:
        """The prompt with its passages, cut where they must be; None if there is no room."""
        room = self.room(make([""] * len(passages)), max_new_tokens)
        lengths = [self._length(text) for text in passages]
        parts = shares(lengths, max(room, 0))
        if any(part < min(n, FEWEST_TOKENS) for part, n in zip(parts, lengths, strict=True)):
            return None
        self.counts["passages"] += len(passages)
        self.counts["passages_cut"] += sum(p < n for p, n in zip(parts, lengths, strict=True))
        return make([self._cut(text, part) for text, part in zip(passages, parts, strict=True)])

    def room(self, frame: Prompt, max_new_tokens: int) -> int:
        """Tokens left for passages beside a prompt without them; may be negative."""
        used = sum(self._count(content) + MESSAGE_TOKENS for _, content in frame.messages)
        return self.context_tokens - max_new_tokens - used - TEMPLATE_TOKENS

    def _length(self, text: str) -> int:
        if text not in self._lengths:
            self._lengths[text] = self._count(text)
        return self._lengths[text]

    def _cut(self, text: str, budget: int) -> str:
        if self._length(text) <= budget:
            return text
        if (text, budget) not in self._cuts:
            self._cuts[text, budget] = cut(text, budget, self._count)
        return self._cuts[text, budget]


def shares(lengths: Sequence[int], room: int) -> list[int]:
    """Equal shares of `room`; what a short text leaves over is shared by the longer ones.

    Lengths 2, 9, 9 in 12 get 2, 5, 5. The sum is at most `room`, no share above its length.
    """
    out = [0] * len(lengths)
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for left, i in zip(range(len(order), 0, -1), order, strict=True):
        out[i] = min(lengths[i], room // left)
        room -= out[i]
    return out


def cut(text: str, budget: int, count: Callable[[str], int]) -> str:
    """The longest beginning of at most `budget` tokens, found by bisection; ends at a word's end
    unless the first word alone is too long."""
    low, high = 0, len(text)  # text[:low] fits
    while low < high:
        middle = (low + high + 1) // 2
        if count(text[:middle]) <= budget:
            low = middle
        else:
            high = middle - 1
    head = text[:low]
    inside = low < len(text) and not text[low].isspace() and len(head.split()) > 1
    return (head.rsplit(None, 1)[0] if inside and not head[-1].isspace() else head).rstrip()
