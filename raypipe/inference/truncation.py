"""What is read of a query and a document: the beginning of the pair, or the best passage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from raypipe.config import Config

Ids = np.ndarray[Any, Any]
Pair = tuple[Ids, Ids]
"""Tokens of the query and of the document, without special tokens."""


class _FirstP(Config):
    """Reads the beginning of the document only: one passage per pair."""

    def cut(self, n_query: int, n_doc: int, n_special: int) -> tuple[int, int]:
        """How many tokens of each remain."""
        raise NotImplementedError

    def passages(self, n_query: int, n_doc: int, n_special: int) -> list[tuple[int, int, int]]:
        """(query tokens kept, document start, document stop) of the one passage."""
        query, doc = self.cut(n_query, n_doc, n_special)
        return [(query, 0, doc)]


class LongestFirst(_FirstP):
    """Cut the longer of query and document until the pair fits, as tokenizers do by default."""

    length_fields: ClassVar[str] = "max_length"
    """What decides `longest`, for errors; every truncation has it."""

    type: Literal["longest_first"] = "longest_first"
    max_length: int = Field(256, ge=8)
    """Tokens of the whole pair, special tokens included."""

    def cut(self, n_query: int, n_doc: int, n_special: int) -> tuple[int, int]:
        """How many tokens of each remain: the rule of Hugging Face tokenizers, odd ends too."""
        room = self.max_length - n_special
        short, long = min(n_query, n_doc), max(n_query, n_doc)
        long = short if short > room else min(long, max(short, room - short))
        if short + long > room:
            short, long = room // 2, room // 2 + room % 2
        return (short, long) if n_query <= n_doc else (long, short)

    @property
    def longest(self) -> int:
        """Tokens of the longest possible pair."""
        return self.max_length

    @property
    def reads(self) -> str:
        """What is read of a pair, in a table's heading."""
        return f"pairs of up to {self.max_length} tokens"


class Budgets(_FirstP):
    """A fixed budget for each side."""

    length_fields: ClassVar[str] = "query and doc"

    type: Literal["budgets"] = "budgets"
    query: int = Field(32, ge=1)
    """Tokens of the query, without special tokens."""
    doc: int = Field(256, ge=1)
    """Tokens of the document, without special tokens."""

    def cut(self, n_query: int, n_doc: int, n_special: int) -> tuple[int, int]:
        """How many tokens of each remain."""
        return min(n_query, self.query), min(n_doc, self.doc)

    @property
    def longest(self) -> int:
        """Tokens of the longest possible pair, with room for four special tokens."""
        return self.query + self.doc + 4

    @property
    def reads(self) -> str:
        """What is read of a pair, in a table's heading."""
        return f"{self.query} tokens of the query, {self.doc} of the document"


class MaxP(Config):
    """Long documents in overlapping passages: a pair scores as its best passage does.

    In training, too: the gradient flows through the winning passage alone. Dai and Callan 2019
    (arXiv 1905.09217) train on single passages instead and take the maximum when they score.
    """

    length_fields: ClassVar[str] = "query and length"

    type: Literal["max_p"] = "max_p"
    query: int = Field(64, ge=1)
    """Tokens of the query, without special tokens; every passage is read with it."""
    length: int = Field(192, ge=1)
    """Tokens of a passage, without special tokens."""
    stride: int = Field(96, ge=1)
    """Tokens from the start of one passage to that of the next; at most `length`."""
    max_passages: int | None = Field(8, ge=1)
    """Passages read of a document, from its beginning; None reads all of it."""

    @model_validator(mode="after")
    def _no_gaps(self) -> MaxP:
        if self.stride > self.length:
            raise ValueError(
                f"stride={self.stride} is more than length={self.length}: tokens between two "
                "passages would never be read; lower stride or raise length"
            )
        return self

    def passages(self, n_query: int, n_doc: int, n_special: int) -> list[tuple[int, int, int]]:
        """(query tokens kept, document start, document stop), in order; each reads new tokens."""
        count = 1 + max(-(-(n_doc - self.length) // self.stride), 0)
        starts = [self.stride * i for i in range(min(count, self.max_passages or count))]
        query = min(n_query, self.query)
        return [(query, start, min(start + self.length, n_doc)) for start in starts]

    @property
    def longest(self) -> int:
        """Tokens of the longest possible passage with its query and four special tokens."""
        return self.query + self.length + 4

    @property
    def reads(self) -> str:
        """What is read of a pair, in a table's heading."""
        most = f"the best of up to {self.max_passages}" if self.max_passages else "the best"
        return f"{most} passages of {self.length} tokens, every {self.stride}"


class TextLengths(Config):
    """Query and document each alone, as a bi-encoder reads them."""

    length_fields: ClassVar[str] = "query_length and max_length"

    type: Literal["texts"] = "texts"
    query: int = Field(64, ge=8)
    """Tokens of a query, with its special tokens and prefix."""
    doc: int = Field(256, ge=8)
    """Tokens of a document, counted alike."""

    def passages(self, n_query: int, n_doc: int, n_special: int) -> list[tuple[int, int, int]]:
        """One: (query tokens kept, 0, document stop)."""
        query, doc = self.query - n_special, self.doc - n_special
        return [(min(n_query, query), 0, min(n_doc, doc))]

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max(self.query, self.doc)

    @property
    def reads(self) -> str:
        """What is read of a pair, in a table's heading."""
        return f"{self.query} tokens of the query, {self.doc} of the document, each alone"


Truncation = Annotated[LongestFirst | Budgets | MaxP, Field(discriminator="type")]
Reading = LongestFirst | Budgets | MaxP | TextLengths
"""What is read of a pair by a model of any kind."""


def expand(
    pairs: Sequence[Pair], truncation: Reading, n_special: int
) -> tuple[list[Pair], list[int]]:
    """What is read of the pairs: all passages, in order, and how many each pair has (>= 1)."""
    flat, counts = [], []
    for query, doc in pairs:
        passages = truncation.passages(len(query), len(doc), n_special)
        flat += [(query[:kept], doc[start:stop]) for kept, start, stop in passages]
        counts.append(len(passages))
    return flat, counts
