"""Model inputs from stored token ids: special-token templates and length-sorted batches.

Texts are tokenised once, without special tokens. What the tokenizer would have added around one
text or between two is read off the tokenizer itself, so this works for every family.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Ids = np.ndarray[Any, Any]
ROUND = 8
"""Tokens: lengths are padded to multiples of it, 4 of 100 tokens."""


@dataclass(frozen=True)
class Template:
    """The special tokens around and between texts, with the type id of every part."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    type_ids: tuple[tuple[int, ...], int, tuple[int, ...], int, tuple[int, ...]] | None
    """before, query, between, document, after; None for models without token types."""
    pad_id: int
    pad_type: int

    @classmethod
    def of(cls, tokenizer: Any, *, pair: bool = True) -> Template:
        """Read the template off a tokenizer, for pairs or for single texts."""
        texts = ("a", "b") if pair else ("a",)
        encoded = tokenizer(*texts, return_token_type_ids=True)
        ids, types = encoded["input_ids"], encoded["token_type_ids"]
        sides = encoded.sequence_ids(0)
        first = [i for i, side in enumerate(sides) if side == 0]
        last = [i for i, side in enumerate(sides) if side == (1 if pair else 0)]
        between = slice(first[-1] + 1, last[0]) if pair else slice(0, 0)
        has_types = "token_type_ids" in tokenizer.model_input_names
        parts = (
            tuple(types[: first[0]]),
            types[first[0]],
            tuple(types[between]),
            types[last[0]],
            tuple(types[last[-1] + 1 :]),
        )
        return cls(
            before=tuple(ids[: first[0]]),
            between=tuple(ids[between]),
            after=tuple(ids[last[-1] + 1 :]),
            type_ids=parts if has_types else None,
            pad_id=tokenizer.pad_token_id or 0,
            pad_type=tokenizer.pad_token_type_id,
        )

    @property
    def n_special(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)

    def pad(
        self, texts: Sequence[tuple[Ids, Ids | None]], longest: int | None = None
    ) -> dict[str, Ids]:
        """[batch, longest] int64 arrays as the tokenizer would give; texts are cut already.

        Args:
            longest: tokens that every text is padded to; None is those of the longest.
        """
        before, between, after = (
            np.array(part, dtype=np.int64) for part in (self.before, self.between, self.after)
        )
        parts = [
            part
            for first, second in texts
            for part in (before, first, between, () if second is None else second, after)
        ]
        sizes = np.array([len(part) for part in parts]).reshape(len(texts), 5)
        lengths = sizes.sum(axis=1)
        mask = np.arange(lengths.max() if longest is None else longest) < lengths[:, None]
        ids = np.full(mask.shape, self.pad_id, dtype=np.int64)
        ids[mask] = np.concatenate(parts)
        inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        if self.type_ids is None:
            return inputs
        types = np.full(mask.shape, self.pad_type, dtype=np.int64)
        types[mask] = self._types(sizes)
        return {**inputs, "token_type_ids": types}

    def _types(self, sizes: Ids) -> Ids:
        """The type ids of all tokens, text after text.

        Args:
            sizes: [texts, 5] tokens of every part.
        """
        assert self.type_ids is not None
        before, first, between, second, after = self.type_ids
        values = np.array([*before, first, *between, second, *after], dtype=np.int64)
        often = np.ones((len(sizes), len(values)), dtype=np.int64)
        often[:, len(before)] = sizes[:, 1]
        often[:, len(before) + 1 + len(between)] = sizes[:, 3]
        return np.repeat(np.tile(values, len(sizes)), often.reshape(-1))


def padded_lengths(lengths: Sequence[int] | Ids, most: int) -> Ids:
    """Every length rounded up to a multiple of `ROUND`, but at most `most` where it was below."""
    exact = np.asarray(lengths, dtype=np.int64)
    return np.maximum(exact, np.minimum(-(-exact // ROUND) * ROUND, most))


def even_batches(padded: Ids, budget: int) -> Iterator[Ids]:
    """As `length_batches`, but only texts of one padded length are together in a batch.

    What a text is padded to then depends on the text alone. On a CPU so does its value, to the bit:
    a matrix product adds a row's numbers in the same order whatever rows are beside it, but sums
    over 40 positions and over 48 do not end alike.
    """
    if not len(padded):
        return
    order = np.argsort(-padded, kind="stable")
    ends = np.flatnonzero(np.diff(padded[order], append=-1)) + 1
    for start, stop in zip([0, *ends[:-1]], ends, strict=True):
        size = max(budget // max(int(padded[order[start]]), 1), 1)
        for first in range(start, stop, size):
            yield order[first : min(first + size, stop)]


def length_batches(lengths: Sequence[int] | Ids, budget: int) -> Iterator[Ids]:
    """Positions in batches of similar length, longest first, each at most `budget` padded tokens.

    A text longer than the budget is a batch of its own. Sorting matters: padding is 35 % of the
    tokens of unsorted batches. Equal lengths keep their order, so batches never depend on chance.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        stop = start + max(budget // longest, 1)
        yield order[start:stop]
        start = stop
