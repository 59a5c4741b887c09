"""Texts of earlier tables, found again by what they say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np

from raypipe.tables.text_table import TextTable


class KnownTexts:
    """The texts of several tables as one sequence of rows, looked up by text.

    Memory: 16 bytes per text.
    """

    def __init__(self, tables: Sequence[TextTable]) -> None:
        self._tables = tables
        self._starts = [0, *accumulate(map(len, tables))]
        hashes = _hashes(text for table in tables for text in table.iter_texts())
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def rows_of(self, texts: Sequence[str]) -> np.ndarray:
        """[len(texts)] int64: the first row with exactly this text, -1 where no table has it."""
        rows = np.full(len(texts), -1, dtype=np.int64)
        wanted = _hashes(texts)
        at = np.searchsorted(self._sorted, wanted)
        there = np.flatnonzero(at < len(self._sorted))
        for number in there[self._sorted[at[there]] == wanted[there]]:
            row = int(self._order[at[number]])
            if self._text(row) == texts[number]:  # 64 bits of two texts may be equal
                rows[number] = row
        return rows

    def place(self, row: int) -> tuple[int, int]:
        """The number of the table that a row stands in, and its row there."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return number, row - self._starts[number]

    def _text(self, row: int) -> str:
        number, within = self.place(row)
        return self._tables[number].text(within)


def _hashes(texts: Iterable[str]) -> np.ndarray:
    """64 bits of every text."""
    return np.fromiter(
        (
            int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
            for text in texts
        ),
        np.uint64,
    )
