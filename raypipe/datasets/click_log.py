"""What a log of clicks says of queries and documents, and how far its positions decided that.

A row is a document that was shown for a query: query, document, position from 1, clicked (0 or 1,
or a number of clicks), and, if there are any, impressions, propensity and session columns.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from raypipe.datasets.own_qrels import DOC_IDS, QUERY_IDS
from raypipe.datasets.own_rows import Header, OwnRow, own_rows, table_files
from raypipe.tables.fields import real, whole

CLIP = 10.0
"""The most that a click counts for its position: rare clicks far down would drown the others."""
QUERIES = ("query", "query_text", "q", "search_term")
NAMES: Mapping[str, Sequence[str]] = {
    "query_id": QUERY_IDS,
    "query": QUERIES,
    "doc_id": (*DOC_IDS, "document", "doc", "item", "url"),
    "position": ("position", "rank", "pos"),
    "clicked": ("clicked", "clicks", "click"),
    "impressions": ("impressions", "views", "shown"),
    "propensity": ("propensity", "examination"),
    "session": ("session", "session_id", "serp_id", "page_id"),
}
"""Usual names of the columns, the first that a log has."""
_YES = {"true": 1, "false": 0, "yes": 1, "no": 0}


class ClickRow(NamedTuple):
    """One row of a log."""

    query: str
    """The query's id, or its text where the log has no ids."""
    doc_id: str
    position: int
    clicks: int
    impressions: int
    propensity: float | None
    session: str | None


@dataclass
class Shown:
    """A document as it was shown for a query."""

    impressions: int = 0
    positions: int = 0
    """The sum of its positions over the impressions."""
    clicks: Counter[int] = field(default_factory=Counter)
    """By position."""
    weighted: float = 0.0
    """Clicks, each counted by the inverse of its propensity, where the log has propensities."""
    skipped: bool = False
    """Whether it stood above a click and was not clicked."""

    @property
    def position(self) -> float:
        return self.positions / self.impressions


class ClickLog:
    """A log, read once: by query and document what was shown, clicked and passed over.

    Raises:
        ConfigError: a malformed row, with its place; columns that are missing; no click at all.
    """

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        self.by_query: dict[str, dict[str, Shown]] = defaultdict(lambda: defaultdict(Shown))
        self.has_propensities = False
        self._impressions_at: Counter[int] = Counter()
        self._clicks_at: Counter[int] = Counter()
        last_click: dict[tuple[str, str | None], int] = defaultdict(int)
        unclicked: list[tuple[str, str, str | None, int]] = []
        for row in read_log(path, columns):
            self._add(row)
            page = (row.query, row.session)
            if row.clicks:
                last_click[page] = max(last_click[page], row.position)
            else:
                unclicked.append((row.query, row.doc_id, row.session, row.position))
        for query, doc_id, session, position in unclicked:
            if position < last_click.get((query, session), 0):
                self.by_query[query][doc_id].skipped = True
        self.by_query = {query: dict(docs) for query, docs in self.by_query.items()}

    def _add(self, row: ClickRow) -> None:
        shown = self.by_query[row.query][row.doc_id]
        shown.impressions += row.impressions
        shown.positions += row.position * row.impressions
        self._impressions_at[row.position] += row.impressions
        if row.clicks:
            shown.clicks[row.position] += row.clicks
            self._clicks_at[row.position] += row.clicks
        if row.propensity is not None:
            self.has_propensities = True
            shown.weighted += row.clicks * min(1 / row.propensity, CLIP)

    def propensities(self) -> dict[int, float]:
        """How likely a document at each position was looked at, estimated: the position's rate of
        clicks, as a share of the best position's, never rising. So all of the fall is put down to
        the position, none to better documents standing higher."""
        rates = {
            position: self._clicks_at[position] / shown
            for position, shown in sorted(self._impressions_at.items())
        }
        best, low, estimated = max(rates.values(), default=0.0), 1.0, {}
        for position, rate in rates.items():
            low = min(low, rate / best if best else 1.0)
            estimated[position] = max(low, 1 / CLIP)
        return estimated

    def weight(self, shown: Shown, propensities: Mapping[int, float]) -> float:
        """The mean inverse propensity of a clicked document's clicks, at most `CLIP`."""
        clicks = shown.clicks.total()
        if self.has_propensities:
            return shown.weighted / clicks
        return sum(n / propensities[p] for p, n in shown.clicks.items()) / clicks


def read_log(path: Path, columns: Mapping[str, str]) -> Iterator[ClickRow]:
    """The rows of a log: a table with a first line of names, plain or .gz, or parts in a folder.

    Args:
        columns: names of `query_id`, `query` and `doc_id`, where they are others than the usual.

    Raises:
        ConfigError: a malformed row, with its place.
    """
    known = {name for names in NAMES.values() for name in names} | set(columns.values())
    header = Header(
        lambda fields: len({f.casefold() for f in fields} & {k.casefold() for k in known}) > 1,
        lambda number: None,
        "a first line that names query, document, position and clicked",
    )
    first: ClickRow | None = None
    for part in table_files(path, "clicks"):
        for row in own_rows(part, header):
            read = _row(row, columns)
            first = first or read
            if (read.propensity is None) != (first.propensity is None):
                raise row.wrong(
                    "a propensity in every row or in none, and the first row has "
                    f"{'none' if first.propensity is None else 'one'}"
                )
            yield read


def _row(row: OwnRow, columns: Mapping[str, str]) -> ClickRow:
    values = {name.casefold(): value for name, value in row.values.items()}

    def value(part: str) -> Any:
        names = [columns[part].casefold()] if part in columns else []
        names += [name for name in NAMES[part] if name not in names]
        return next((values[name] for name in names if values.get(name) not in (None, "")), None)

    query, doc_id = value("query_id"), value("doc_id")
    query = value("query") if query is None else query
    for what, column, found in (("a query", "query", query), ("a document", "doc_id", doc_id)):
        if not isinstance(found, str | int) or not str(found).strip():
            raise row.wrong(f"{what} in a column such as {column}")
    position = _whole(row, "position", value("position"), 1)
    clicks = _clicks(row, value("clicked"))
    shown = value("impressions")
    impressions = max(clicks, 1) if shown is None else _whole(row, "impressions", shown, 1)
    if clicks > impressions:
        raise row.wrong(f"at most as many clicks as impressions, which are {impressions}", clicks)
    propensity = value("propensity")
    if propensity is not None:
        propensity = _share(row, propensity)
    session = value("session")
    return ClickRow(
        str(query).strip(),
        str(doc_id).strip(),
        position,
        clicks,
        impressions,
        propensity,
        None if session is None else str(session),
    )


def _clicks(row: OwnRow, found: Any) -> int:
    yes = _YES.get(str(found).strip().casefold())
    return _whole(row, "clicked", found, 0) if yes is None else yes


def _whole(row: OwnRow, what: str, found: Any, least: int) -> int:
    try:
        number = whole(str(found).strip().removesuffix(".0"))
    except ValueError:
        number = least - 1
    if number < least:
        raise row.wrong(f"a whole number from {least} as {what}", found)
    return number


def _share(row: OwnRow, found: Any) -> float:
    try:
        share = real(str(found).strip())
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise row.wrong("a propensity above 0 and up to 1", found)
    return share
