"""Rows of a file joined with the wanted pairs, in one pass and little memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.config import ConfigError
from raypipe.tables.text_columns import Columns, blocks
from raypipe.teachers.published.wanted import Array, Means, Wanted


@dataclass
class Join:
    """Reads files of one format and remembers what an error or the manifest has to say."""

    label: str
    """Of the format, in errors."""
    wanted: Wanted
    counts: Counter[str] = field(default_factory=Counter)
    _query: str | None = None
    _pair: tuple[str, str] | None = None

    def read(self, path: Path, columns: Columns) -> Iterator[tuple[list[Array], list[Array]]]:
        """(places of each document column, values of each number column) of wanted queries.

        A place is -1 where the document is not wanted. Counts `rows`, `rows_other_queries` and
        `rows_unknown_documents`, rows of which at least one document is not wanted.
        """
        for block in blocks(path, columns):
            rows = self.wanted.query_rows(block["query_id"])
            ours = rows >= 0
            self.counts["rows"] += len(rows)
            self.counts["rows_other_queries"] += int((~ours).sum())
            if self._query is None and len(rows):
                self._query = block["query_id"][0].as_py()
            if ours.any():
                yield self._join(block.filter(pa.array(ours)), rows[ours], columns)

    def _join(
        self, block: pa.RecordBatch, rows: Array, columns: Columns
    ) -> tuple[list[Array], list[Array]]:
        places = [self.wanted.places(rows, block[name]) for name in columns.docs]
        unknown = np.logical_or.reduce([place < 0 for place in places])
        self.counts["rows_unknown_documents"] += int(unknown.sum())
        if self._pair is None and unknown.any():
            column = next(number for number, place in enumerate(places) if (place < 0).any())
            at = int(np.flatnonzero(places[column] < 0)[0])
            doc_id = block[columns.docs[column]][at].as_py()
            self._pair = (self.wanted.query_ids[rows[at]].as_py(), doc_id)
        return places, [block[name].to_numpy() for name in columns.numbers]

    def add_finite(self, means: Means, places: Array, values: Array) -> None:
        """Add to `means` what has a place; other than finite is counted and left out."""
        here = places >= 0
        finite = here & np.isfinite(values)
        self.counts["values_not_finite"] += int(here.sum() - finite.sum())
        self.counts["values"] += int(finite.sum())
        means.add(places[finite], values[finite])

    def require_values(self, paths: Sequence[str]) -> None:
        """At least one value was kept.

        Raises:
            ConfigError: none was; says which ids the file has and which the data set has.
        """
        if self.counts["values"]:
            return
        files, rows = f"{self.label} file {', '.join(paths)}", self.counts["rows"]
        if self.counts["values_not_finite"]:
            raise ConfigError(
                f"{files}: all {self.counts['values_not_finite']} values of wanted documents are "
                "NaN or infinite; the model that wrote them has diverged or overflowed"
            )
        if rows == self.counts["rows_other_queries"]:
            raise no_query(files, f"{rows} rows", self._query, self.wanted.query_ids)
        query, doc_id = self._pair or ("", "")
        row = int(self.wanted.query_rows(pa.array([query]))[0])
        ends = self.wanted.ends[row : row + 2]
        ours = self.wanted.ids_at(np.arange(*ends)[:1]).to_pylist()
        has = f"has {ours[0]!r}" if ours else "is empty"
        raise ConfigError(
            f"{files}: none of its documents is in the lists of its queries; for query {query!r} "
            f"the file has {doc_id!r}, the list {has}; the file's document ids must be those of "
            "the data set, and its documents candidates"
        )


def no_query(files: str, size: str, found: str | None, query_ids: pa.Array) -> ConfigError:
    """The error of files that say nothing of any query."""
    example = f"; it has {found!r}" if found is not None else ""
    ours = f", the data set {query_ids[0].as_py()!r}" if len(query_ids) else ""
    return ConfigError(
        f"{files}: none of its {size} is of one of the {len(query_ids)} queries{example}{ours}; "
        "the file's query ids must be those of the data set"
    )
