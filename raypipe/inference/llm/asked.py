"""A chunk's conversation with a language model: prompts that fit, requests that are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from raypipe.inference.llm.base import Answer, Generator, Prompt
from raypipe.inference.llm.thinking import cut_in_thinking

MOST_OF_ERROR = 300
"""Characters of an engine's error that are shown."""
MESSAGE_TOKENS = 8
"""Room for the marks of a chat template around one message; five are usual."""
TEMPLATE_TOKENS = 40
"""Room for what a template adds once: a date, its own system message."""
FEWEST_TOKENS = 8
"""A passage with fewer says nothing: the prompt does not fit."""


class Asked:
    """A chunk's conversation with the engine: fits prompts, sends them, counts what fails."""

    def __init__(self, generate: Generator, context_tokens: int, max_failed: float) -> None:
        self.counts: Counter[str] = Counter()
        self.fit = Fitter(generate.count_tokens, context_tokens, self.counts)
        self._generate = generate
        self._max_failed = max_failed
        self._expected = 0

    def expect(self, requests: int) -> None:
        """How many requests the chunk will send; `max_failed` is a share of them."""
        self._expected = requests

    def __call__(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Answer]:
        """Answers in the order of the prompts; a failed answer has `error`.

        Raises:
            RuntimeError: more than `max_failed` of the chunk's requests have failed.
        """
        answers = self._generate(prompts, max_new_tokens) if prompts else []
        if len(answers) != len(prompts):
            raise RuntimeError(f"the engine gave {len(answers)} answers to {len(prompts)} prompts")
        answers = [self._finished(answer) for answer in answers]
        errors = [answer.error for answer in answers if answer.error is not None]
        self.counts["requests"] += len(prompts)
        self.counts["requests_failed"] += len(errors)
        failed, expected = self.counts["requests_failed"], self._expected
        if failed > self._max_failed * expected:
            raise RuntimeError(
                f"{failed} of {expected} requests of this chunk failed, max_failed allows "
                f"{self._max_failed:.1%}; the chunk is not written, finished chunks stay; the "
                f"first error: {errors[0][:MOST_OF_ERROR]}"
            )
        return answers

    def _finished(self, answer: Answer) -> Answer:
        """The answer; without its text, which is counted, where it ends inside its thinking."""
        if answer.error is not None or not cut_in_thinking(answer.text):
            return answer
        self.counts["answers_cut_in_thinking"] += 1
        return replace(answer, text="")


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
    parts = [0] * len(lengths)
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for left, i in zip(range(len(order), 0, -1), order, strict=True):
        parts[i] = min(lengths[i], room // left)
        room -= parts[i]
    return parts


def cut(text: str, budget: int, count: Callable[[str], int]) -> str:
    """The longest beginning of at most `budget` tokens, by bisection.

    The cut is at a word's end, unless the first word alone is too long.
    """
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
