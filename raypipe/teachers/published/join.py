"""The values that a published file has for the wanted pairs, in one pass and little memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.config import ConfigError
from raypipe.tables.text_columns import Columns, blocks
from raypipe.teachers.published.wanted import Array, PairMeans, WantedPairs


@dataclass
class Join:
    """Reads files of one format, counts their rows and keeps examples for the error messages."""

    label: str
    """Name of the format, for errors."""
    wanted: WantedPairs
    counts: Counter[str] = field(default_factory=Counter)
    _query: str | None = None
    """The first query id of the files."""
    _pair: tuple[str, str] | None = None
    """The first query and document whose document is not in the query's list."""

    def read(self, path: Path, columns: Columns) -> Iterator[tuple[list[Array], list[Array]]]:
        """(pair numbers by document column, values by number column) of the wanted queries' rows.

        A pair's number is -1 where the document is not wanted. Counts `rows`, `rows_other_queries`
        and `rows_unknown_documents`, rows of which at least one document is not wanted.
        """
        for block in blocks(path, columns, self.counts):
            rows = self.wanted.query_rows(block["query_id"])
            known = rows >= 0
            self.counts["rows"] += len(rows)
            self.counts["rows_other_queries"] += int((~known).sum())
            if self._query is None and len(rows):
                self._query = block["query_id"][0].as_py()
            if known.any():
                yield self._join(block.filter(pa.array(known)), rows[known], columns)

    def _join(
        self, block: pa.RecordBatch, rows: Array, columns: Columns
    ) -> tuple[list[Array], list[Array]]:
        numbers = [self.wanted.numbers(rows, block[name]) for name in columns.docs]
        unknown = np.logical_or.reduce([column < 0 for column in numbers])
        self.counts["rows_unknown_documents"] += int(unknown.sum())
        if self._pair is None and unknown.any():
            at = int(np.flatnonzero(unknown)[0])
            name = columns.docs[next(n for n, column in enumerate(numbers) if column[at] < 0)]
            self._pair = (self.wanted.query_ids[rows[at]].as_py(), block[name][at].as_py())
        return numbers, [block[name].to_numpy() for name in columns.numbers]

    def add_finite(self, means: PairMeans, numbers: Array, values: Array) -> None:
        """Add the wanted pairs' values to `means`; NaN and infinite values are only counted."""
        wanted = numbers >= 0
        finite = wanted & np.isfinite(values)
        self.counts["values_not_finite"] += int(wanted.sum() - finite.sum())
        self.counts["values"] += int(finite.sum())
        means.add(numbers[finite], values[finite])

    def require_values(self, paths: Sequence[str]) -> None:
        """Refuse files without a value for any wanted pair.

        Raises:
            ConfigError: the message shows ids of the file beside ids of the data set.
        """
        if self.counts["values"]:
            return
        files, rows = f"{self.label} file {', '.join(paths)}", self.counts["rows"]
        if self.counts["values_not_finite"]:
            raise ConfigError(
                f"{files}: all {self.counts['values_not_finite']} values of wanted documents are "
                "NaN or infinite; the model that wrote them has diverged or overflowed, score the "
                "documents again"
            )
        if rows == self.counts["rows_other_queries"]:
            raise no_query(files, f"{rows} rows", self._query, self.wanted.query_ids)
        query, doc_id = self._pair or ("", "")
        row = int(self.wanted.query_rows(pa.array([query]))[0])
        numbers = np.arange(*self.wanted.bounds[row : row + 2])
        listed = self.wanted.doc_ids(numbers[:1]).to_pylist()
        has = f"has {listed[0]!r}" if listed else "is empty"
        raise ConfigError(
            f"{files}: none of its documents is in the lists of its queries; for query {query!r} "
            f"the file has {doc_id!r}, the list {has}; the file's document ids must be those of "
            "the data set, and its documents candidates"
        )


def no_query(files: str, size: str, example: str | None, query_ids: pa.Array) -> ConfigError:
    """The error for files without any query of the data set.

    Args:
        files: what they are and their paths.
        size: how much they hold: "12 rows".
        example: a query id of theirs, if there is one.
        query_ids: of the data set.
    """
    has = f"; it has {example!r}" if example is not None else ""
    wanted = f", the data set {query_ids[0].as_py()!r}" if len(query_ids) else ""
    return ConfigError(
        f"{files}: none of its {size} is of one of the {len(query_ids)} queries{has}{wanted}; "
        "the file's query ids must be those of the data set"
    )
