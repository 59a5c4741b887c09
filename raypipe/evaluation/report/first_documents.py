"""The beginning of every row's lists, for readers who want to see what a figure stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from raypipe.config import Config

SHOWN = 3
"""Documents of a list that a page shows."""
MOST_CHARACTERS = 160
"""Of a text; a page holds thousands."""
FirstIds = Mapping[str, Sequence[str]]
"""query_id -> the first ids of a list."""


class ReportOptions(Config):
    """What a report shows of the data."""

    texts: Literal["local", "tracked"] | None = None
    """Texts of your own queries and documents on the page, in its table query by query: `local`
    writes them to the page on this machine only, `tracked` to the tracking store too; null shows
    ids. The texts of public data sets are always shown."""


@dataclass(frozen=True)
class ListHeads:
    """Of one test set: how rows begin, and the texts that may be shown."""

    rows: Mapping[str, FirstIds]
    """Row -> the lists of its first seed."""
    queries: Mapping[str, str] = field(default_factory=dict)
    """query_id -> text; empty where texts are not shown."""
    docs: Mapping[str, str] = field(default_factory=dict)
    """doc_id -> the beginning of the text; likewise."""

    def without_texts(self) -> ListHeads:
        """The ids alone."""
        return ListHeads(self.rows)

    def json(self) -> dict[str, Any]:
        """Plain JSON values, as `of_json` reads them."""
        rows = {row: {q: list(ids) for q, ids in lists.items()} for row, lists in self.rows.items()}
        return {"rows": rows, "queries": dict(self.queries), "docs": dict(self.docs)}

    @classmethod
    def of_json(cls, plain: Mapping[str, Any]) -> ListHeads:
        """What `json` wrote."""
        return cls(plain["rows"], plain["queries"], plain["docs"])

    def renamed(self, names: Mapping[str, str]) -> ListHeads:
        """The same with other names of rows."""
        return replace(self, rows={names.get(row, row): ids for row, ids in self.rows.items()})

    def beside(self, other: ListHeads) -> ListHeads:
        """With the rows and texts of another job; where both have one, this one's stands."""
        return ListHeads(
            {**other.rows, **self.rows},
            {**other.queries, **self.queries},
            {**other.docs, **self.docs},
        )


def beginning(text: str) -> str:
    """A text on one line, cut after `MOST_CHARACTERS`."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…"
