"""Finds the queries and documents of a training file in a data set: by text, and by id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from raypipe.datasets.training_forms import FileEntry
from raypipe.tables.plain_text import text_hash, text_hashes
from raypipe.tables.text_table import TextTable

Array = np.ndarray[Any, Any]


def hash_id(text: str) -> str:
    """The id of a text without one: 16 digits of its normalised text's hash."""
    return f"{text_hash(text):016x}"


class TextMatch:
    """Rows of a table of texts for entries with texts, ids or both.

    The hashes of all texts are taken once an entry has a text: 6 microseconds and 16 bytes each. An
    entry with both is the row of its id if that has its text, else a row with its text, the
    first of several, else the row of its id, whose text is another then and is counted.

    Args:
        counts: `KIND_matched_by_text` and `KIND_with_another_text` are added to.
        kind: queries or documents.
    """

    def __init__(self, table: TextTable, counts: Counter[str], kind: str) -> None:
        self._table, self._counts, self._kind = table, counts, kind
        self._sorted: tuple[Array, Array] | None = None

    def rows_of(self, entries: Sequence[FileEntry]) -> Array:
        """The row of each entry, int64, -1 where the table has it not."""
        rows = np.full(len(entries), -1, np.int64)
        named = [at for at, entry in enumerate(entries) if entry.text_id is not None]
        if named:
            rows[named] = self._table.rows_of([str(entries[at].text_id) for at in named])
        with_text = [at for at, entry in enumerate(entries) if entry.text is not None]
        if not with_text:
            return rows
        hashes = text_hashes(str(entries[at].text) for at in with_text)
        all_hashes, by_hash = self._all()
        ids = rows[with_text]
        if not len(by_hash):
            return rows
        same = (ids >= 0) & (all_hashes[ids] == hashes)
        at = np.searchsorted(all_hashes[by_hash], hashes)
        first = by_hash[np.minimum(at, len(by_hash) - 1)]
        by_text = np.where(all_hashes[first] == hashes, first, -1)
        rows[with_text] = np.where(same, ids, np.where(by_text >= 0, by_text, ids))
        self._counts[f"{self._kind}_matched_by_text"] += int((~same & (by_text >= 0)).sum())
        self._counts[f"{self._kind}_with_another_text"] += int(
            (~same & (by_text < 0) & (ids >= 0)).sum()
        )
        return rows

    def _all(self) -> tuple[Array, Array]:
        """(hashes by row, rows in the order of their hashes, the first of equal ones first)."""
        if self._sorted is None:
            hashes = text_hashes(self._table.iter_texts())
            self._sorted = hashes, np.argsort(hashes, kind="stable")
        return self._sorted
