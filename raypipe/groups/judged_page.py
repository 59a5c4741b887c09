"""The page on which a person looks at a judge's verdicts beside the labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.names import printable
from raypipe.storage.artifacts import Attempt
from raypipe.tables.text_table import TextTable

PAGE = "judged.html"
ROWS = 50
"""On the page: half of them negatives that the judge calls relevant, while there are as many."""
CHARACTERS = 600
"""Of a document."""
_STYLE = (
    "body{font:15px/1.4 sans-serif;margin:2em}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.4em;vertical-align:top;text-align:left}"
    ".relevant{background:#fff3c4}"
)


@dataclass(frozen=True)
class JudgedRow:
    """A negative and what the models say of it."""

    query_id: str
    doc_id: str
    first: float | None
    """The first model's value; None if it had no answer, or was not asked."""
    verdict: float | None
    """The value of the model whose word counts; None likewise."""
    asked: bool
    """Whether that model was asked."""

    @property
    def is_relevant(self) -> bool:
        return self.verdict is not None and self.verdict > 0


def chosen(rows: Iterable[JudgedRow]) -> list[JudgedRow]:
    """At most `ROWS` by the hash of their ids, those called relevant first."""

    def number(row: JudgedRow) -> bytes:
        return hashlib.sha256(f"{row.query_id}\0{row.doc_id}".encode()).digest()

    ordered = sorted(rows, key=number)
    relevant = [row for row in ordered if row.is_relevant]
    others = [row for row in ordered if not row.is_relevant]
    most = max(ROWS // 2, ROWS - len(others))
    shown = relevant[:most]
    return [*shown, *others[: ROWS - len(shown)]]


def write_page(
    rows: Iterable[JudgedRow], models: Sequence[str], relabel: str, attempt: Attempt
) -> None:
    """Write `PAGE` into the attempt, whose inputs have the texts.

    Args:
        models: the first one, if there is one, then the one whose word counts.
        relabel: what becomes of a negative that is called relevant.
    """
    queries = TextTable(attempt.inputs["queries"].local() / QUERIES_FILE)
    docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
    heads = ["query", "document", "label", *models]
    lines = [_line(row, queries, docs, len(models)) for row in chosen(rows)]
    title = f"Negatives that a judge looked at; those called relevant: {relabel}"
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    page = (
        f'<!doctype html><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1><table><tr>{head}</tr>\n"
        + "\n".join(lines)
        + "\n</table>\n"
    )
    with attempt.open(PAGE) as sink:
        sink.write(page.encode())


def _line(row: JudgedRow, queries: TextTable, docs: TextTable, models: int) -> str:
    query = queries.text(queries.row_of(row.query_id))
    text = docs.text(docs.row_of(row.doc_id))[:CHARACTERS]
    words = [_words(row.first, True), _words(row.verdict, row.asked)][-models:]
    cells = [f"{row.query_id}: {query}", f"{row.doc_id}: {text}", "not judged relevant", *words]
    mark = ' class="relevant"' if row.is_relevant else ""
    return f"<tr{mark}>" + "".join(f"<td>{escape(printable(c))}</td>" for c in cells) + "</tr>"


def _words(value: float | None, asked: bool) -> str:
    if not asked:
        return "not asked"
    if value is None:
        return "no answer"
    return f"{'relevant' if value > 0 else 'not relevant'} ({value:.1f})"
