"""A comparison as one HTML page that needs nothing else: tables, plots, links to tracked runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from raypipe.evaluation.equivalence import Verdict
from raypipe.evaluation.report import plots
from raypipe.evaluation.report.contents import Report, SetFacts
from raypipe.evaluation.report.details import details_of
from raypipe.evaluation.report.per_query import per_query_json
from raypipe.evaluation.report.tables import (
    Table,
    against,
    effectiveness,
    overview,
    searched,
    sliced,
    suites_against,
    training,
)
from raypipe.evaluation.report.text import explanation, slice_heading
from raypipe.names import printable

_DRAWINGS: dict[str, Callable[[Report, SetFacts], Any]] = {
    "Effectiveness": plots.intervals,
    "Effectiveness against cost": plots.cost,
    "Effectiveness by candidates re-ranked": plots.by_depth,
}
"""Heading to the plot of one test set."""


@dataclass(frozen=True)
class _Section:
    """One test set on the page."""

    test_set: SetFacts
    effectiveness: Table
    tests: dict[str, Table]
    """Reference to the tests against it."""
    details: dict[str, Table]
    """Heading to the table."""
    slices: dict[str, Table]
    """Heading to the table of a slice."""
    drawings: dict[str, str]
    """Heading to SVG."""
    panels: dict[str, str]
    """Heading of a plot of differences to JSON: the reference, then the row of each panel."""
    per_query: str
    """JSON of the table that the page's script fills; empty without one."""


def to_html(report: Report) -> str:
    """The whole page, from `page.html.j2`. A click on a column's head sorts by it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_on_a_page,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    trials, curves = searched(report), plots.curves(report)
    sections = [_section(report, test_set) for test_set in report.sets]
    return environment.get_template("page.html.j2").render(
        report=report,
        verdicts=get_args(Verdict),
        overview=overview(report),
        suites={name: suites_against(report, name) for name in report.suite_references},
        sections=sections,
        contents=_contents(report, sections),
        trials=trials and {"table": trials, "drawing": plots.svg(plots.searched(report))},
        training=training(report),
        curves=curves and plots.svg(curves),
        links=_links(report),
        explanation=explanation(report),
        lines=_lines,
    )


def _contents(report: Report, sections: list[_Section]) -> dict[str, str]:
    """Anchor to heading of everything below the page's beginning."""
    parts = {"overview": "All test sets"} if overview(report) else {}
    parts |= {f"set-{i}": section.test_set.title[0] for i, section in enumerate(sections, 1)}
    parts |= {"trials": "Trials"} if searched(report) else {}
    parts |= {"training": "Training"} if training(report) else {}
    parts |= {"runs": "Tracked runs"} if _links(report) else {}
    parts |= {"recipes": "Recipe"} if report.recipes else {}
    return {**parts, "figures": "What the figures are"}


def _on_a_page(value: Any) -> Any:
    """Text without characters that a page does not show; drawings as they are."""
    return printable(value) if type(value) is str else value


def _lines(text: str) -> Any:
    """Text of several lines, escaped, for a page; `_on_a_page` has one line."""
    from markupsafe import Markup

    return Markup("\n").join(map(printable, text.splitlines()))


def _section(report: Report, test_set: SetFacts) -> _Section:
    several = len([line for line in report.lines[test_set.name] if line.means]) > 1
    drawn = _DRAWINGS if several else {}
    figures = {heading: draw(report, test_set) for heading, draw in drawn.items()}
    tests, panels = {}, {}
    references = report.references_on(test_set)
    for reference in references:
        heading = "Differences per query" + f" to {reference}" * (len(references) > 1)
        figures[heading] = plots.differences(report, test_set, reference)
        rows = [reference, *plots.compared(report, test_set, reference)]
        panels[heading] = json.dumps(list(map(printable, rows)))
        if (table := against(report, test_set, reference)) is not None:
            tests[reference] = table
    return _Section(
        test_set,
        effectiveness(report, test_set),
        tests,
        details_of(report, test_set),
        {
            slice_heading(groups, name): sliced(groups)
            for name, groups in report.sliced(test_set).items()
        },
        {heading: plots.svg(figure) for heading, figure in figures.items() if figure is not None},
        panels,
        per_query_json(report, test_set),
    )


def _links(report: Report) -> dict[str, list[tuple[int, str]]]:
    """Row name to (number of the run, its address); rows and runs without an address left out."""
    numbered = {
        row: [(number, address) for number, address in enumerate(addresses, start=1) if address]
        for row, addresses in report.links.items()
    }
    return {row: addresses for row, addresses in numbered.items() if addresses}
