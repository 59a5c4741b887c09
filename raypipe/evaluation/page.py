"""A comparison as one HTML page that needs nothing else: tables, plots, links to tracked runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from raypipe.evaluation import plots
from raypipe.evaluation.report import Report, SetFacts
from raypipe.evaluation.tables import (
    Table,
    against_reference,
    effectiveness,
    overview,
    searched,
    training,
)
from raypipe.evaluation.text import explanation

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c1c1c;max-width:1180px;margin:2rem auto;
 padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #ddd}
h3{font-size:1rem;margin:1.4rem 0 .3rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13.5px}
th,td{padding:.28rem .6rem;text-align:right;white-space:nowrap;border-bottom:1px solid #eee}
th.word,td.word{text-align:left}th{cursor:pointer;border-bottom:2px solid #bbb;user-select:none}
tr.reference{font-weight:600;background:#f4f7fb}tr.failed{color:#a00}
td.better{color:#00703c}td.worse{color:#b3261e}td.equivalent{color:#005a9c}
td.inconclusive{color:#666}
small{color:#555}ul{padding-left:1.2rem}svg{max-width:100%;height:auto}
.alarm{color:#8a4b00}
"""
_SCRIPT = """
document.querySelectorAll('th').forEach(th=>th.addEventListener('click',()=>{
 const table=th.closest('table'),i=[...th.parentNode.children].indexOf(th);
 const down=th.dataset.down=th.dataset.down==='1'?'0':'1';
 const key=row=>{const text=row.children[i].textContent.trim();
  const number=parseFloat(text.replace(/,/g,'').replace(/^</,''));
  return isNaN(number)?text:number;};
 const rows=[...table.tBodies[0].rows].sort((a,b)=>{const x=key(a),y=key(b);
  const order=typeof x==='number'&&typeof y==='number'?x-y:String(x).localeCompare(String(y));
  return down==='1'?-order:order;});
 rows.forEach(row=>table.tBodies[0].append(row));
}));
"""
_VERDICTS = {"better", "worse", "equivalent", "inconclusive"}


def to_html(report: Report) -> str:
    """The whole page. A click on a column's head sorts by it."""
    title = escape(report.name)
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            *_notes(report),
            *_overview(report),
            *(part for one in report.sets for part in _test_set(report, one)),
            *_searched(report),
            *_training(report),
            *_runs(report),
            "<h2>What the figures are</h2>",
            *(f"<p><small>{escape(text)}</small></p>" for text in explanation(report)),
            f"<script>{_SCRIPT}</script></body></html>",
        ]
    )


def _notes(report: Report) -> Iterator[str]:
    said = [f"FAILED {row.name}: {row.error}" for row in report.failed] + list(report.notes)
    if said:
        yield "<ul>" + "".join(f'<li class="alarm">{escape(text)}</li>' for text in said) + "</ul>"


def _overview(report: Report) -> Iterator[str]:
    if (table := overview(report)) is not None:
        yield "<h2>All test sets</h2>"
        yield _table(table)


def _test_set(report: Report, one: SetFacts) -> Iterator[str]:
    head, *facts = one.title
    yield f"<h2>{escape(head)}</h2>"
    yield "<p><small>" + "<br>".join(map(escape, facts)) + "</small></p>"
    yield _table(effectiveness(report, one))
    for source in one.sources:
        yield f"<p><small>Published: {escape(source)}</small></p>"
    if (tests := against_reference(report, one)) is not None:
        yield f"<h3>Against {escape(str(report.reference))}</h3>"
        yield _table(tests)
    figures: list[tuple[str, Callable[[Report, SetFacts], Any]]] = [
        ("Effectiveness", plots.intervals),
        ("Effectiveness against cost", plots.cost),
        ("Differences per query", plots.differences),
    ]
    for title, draw in figures:
        if (figure := draw(report, one)) is not None:
            yield f"<h3>{title}</h3>"
            yield plots.svg(figure)


def _searched(report: Report) -> Iterator[str]:
    if (table := searched(report)) is not None:
        yield "<h2>Trials</h2>"
        yield _table(table)
        yield plots.svg(plots.searched(report))


def _training(report: Report) -> Iterator[str]:
    if (table := training(report)) is not None:
        yield "<h2>Training</h2>"
        yield "<p><small>Rows are a controlled comparison where their groups are equal.</small></p>"
        yield _table(table)
    if (figure := plots.curves(report)) is not None:
        yield "<h3>Loss and validation</h3>"
        yield plots.svg(figure)


def _runs(report: Report) -> Iterator[str]:
    linked = {row: links for row, links in report.links.items() if any(links)}
    if not linked:
        return
    yield "<h2>Tracked runs</h2><ul>"
    for row, links in linked.items():
        shown = " ".join(_link(address, i) for i, address in enumerate(links, start=1) if address)
        yield f"<li>{escape(row)}: {shown}</li>"
    yield "</ul>"


def _link(address: str, number: int) -> str:
    if not address.startswith(("http://", "https://")):
        return f"<code>{escape(address)}</code>"
    return f'<a href="{escape(address, quote=True)}">run {number}</a>'


def _table(table: Table) -> str:
    heads = "".join(
        f'<th{_word(i, table)} scope="col">{escape(head)}</th>'
        for i, head in enumerate(table.heads)
    )
    body = []
    for number, row in enumerate(table.body):
        cells = "".join(
            f"<td{_word(i, table, cell)}>{escape(cell)}</td>" for i, cell in enumerate(row)
        )
        kind = "reference" if number == table.bold else "failed" if "failed" in row else ""
        body.append(f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>")
    return (
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _word(column: int, table: Table, cell: str = "") -> str:
    if cell in _VERDICTS:
        return f' class="word {cell}"'
    return ' class="word"' if column < table.left else ""
