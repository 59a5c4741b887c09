"""A comparison as text: in the terminal, and as Markdown."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from raypipe.evaluation.comparison import family_sizes, tested
from raypipe.evaluation.report.contents import Report
from raypipe.evaluation.report.details import about_details, details_of
from raypipe.evaluation.report.tables import (
    MARK,
    NO_VALUE,
    Table,
    against,
    effectiveness,
    overview,
    searched,
    sliced,
    suites_against,
    training,
)
from raypipe.evaluation.slices import Sliced
from raypipe.evaluation.suite_comparison import suite_family_sizes
from raypipe.evaluation.suite_test import FEW_SETS, FEWEST_SETS
from raypipe.names import markdown_cell, markdown_text, rich_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


_INTERVAL = re.compile(rf"(.*) (\[[-.\d{NO_VALUE}]+, [-.\d{NO_VALUE}]+\])")


def to_markdown(report: Report) -> str:
    """The whole report as Markdown."""
    parts = [f"# {markdown_text(report.name)}"]
    if (table := overview(report)) is not None:
        parts += ["## All test sets", _markdown(table)]
    for reference in report.suite_references:
        if (table := suites_against(report, reference)) is not None:
            parts += [f"Means over suites, against {markdown_text(reference)}:", _markdown(table)]
    for test_set in report.sets:
        head, *facts = test_set.title
        parts += [f"## {markdown_text(head)}", _listed(facts)]
        parts += [_markdown(effectiveness(report, test_set))]
        for reference in report.references_on(test_set):
            if (tests := against(report, test_set, reference)) is not None:
                parts += [f"Against {markdown_text(reference)}:", _markdown(tests)]
        for heading, details in details_of(report, test_set).items():
            parts += [heading, _markdown(details)]
        for name, groups in report.sliced(test_set).items():
            parts += [markdown_text(slice_heading(groups, name)), _markdown(sliced(groups))]
        parts += [f"Published: {markdown_text(source)}" for source in test_set.sources]
    if (trials := searched(report)) is not None:
        parts += ["## Trials", _markdown(trials)]
    if (trained := training(report)) is not None:
        parts += ["## Training", _markdown(trained)]
    parts += [_listed([*_failures(report), *report.notes])]
    parts += ["\n".join(explanation(report))]
    return "\n\n".join(part for part in parts if part) + "\n"


def print_report(report: Report, console: Console | None = None, *, notes: bool = True) -> None:
    """Print the report in the terminal; of the tests only those of each set's first measure.

    Args:
        notes: False if the terminal has them already; then their number is printed.
    """
    from rich.console import Console

    # a log file has no width of its own; 80 columns would fold every cell
    console = console or Console(width=None if sys.stdout.isatty() else 150)
    for test_set in report.sets:
        for text in test_set.title:
            console.print(rich_text(text))
        console.print()
        _print(console, effectiveness(report, test_set))
        for reference in report.references_on(test_set):
            tests = against(report, test_set, reference, test_set.measures[:1])
            if tests is not None:
                console.print()
                console.print(rich_text(f"against {reference}"))
                _print(console, tests)
                if others := [name for name in test_set.measures[1:] if tested(name)]:
                    listed = f"tests of {', '.join(others)}: in the Markdown and on the HTML page"
                    console.print(rich_text(listed, "dim"))
        for name, groups in report.sliced(test_set).items():
            console.print()
            console.print(rich_text(slice_heading(groups, name)))
            _print(console, sliced(groups))
        console.print()
    tables = {
        "trials": searched(report),
        "training": training(report),
        "all test sets": overview(report),
    }
    for reference in report.suite_references:
        tables[f"means over suites, against {reference}"] = suites_against(report, reference)
    for title, table in tables.items():
        if table is not None:
            console.print(rich_text(title))
            _print(console, table)
            console.print()
    for text in [*_failures(report), *(report.notes if notes else ())]:
        console.print(rich_text(text))
    if report.notes and not notes:
        count = len(report.notes)
        those = "the remark above is" if count == 1 else f"{count} remarks above are"
        console.print(rich_text(f"{those} in the report, too"))
    console.print(rich_text(" ".join(explanation(report)), "dim"))


def slice_heading(groups: Sliced, name: str) -> str:
    """What stands above the table of a slice."""
    return f"{groups.measure} by {name} (queries), with each row's worst group; not tested:"


def explanation(report: Report) -> list[str]:
    """Sentences that tell what intervals, letters and verdicts mean."""
    chosen = report.statistics
    sentences = [
        f"[low, high]: {100 * chosen.level:g} % interval; of a mean over one seed by the bootstrap "
        f"({chosen.resamples:,} resamples), otherwise by a t interval over queries and seeds."
    ]
    if report.mode == "search":
        sentences.append("A search chose among many trials and stopped some: nothing is tested.")
        return [*sentences, *about_details(report)]
    sentences.append(
        "Letters: rows that this one is significantly better than (paired t-tests of all pairs of "
        "a test set, Holm)."
    )
    if any(line.versus for lines in report.lines.values() for line in lines):
        tests = _sizes(family_sizes(report.lines))
        sentences.append(
            f"{MARK} reference. Tests are paired by query and two-sided; the t-tests count what "
            "other queries and other seeds would change (Welch-Satterthwaite), the permutation "
            "test other queries alone. Holm corrects each measure in one family of all rows x test "
            f"sets x references, {tests}. Verdict at alpha {chosen.alpha:g}: equivalent "
            f"means within {chosen.margin:g} (TOST), and the smallest margin is what these queries "
            "and seeds could confirm, before Holm's correction, which the verdict has."
        )
        kinds = {row.kind for row in report.rows}
        if kinds & {"trained", "derived"}:
            sentences[-1] += (
                " With one seed a verdict speaks of this checkpoint: another seed of the same "
                "recipe may differ."
            )
        if "oracle" in kinds:
            sentences[-1] += " The oracle reads the judgements and is not tested."
    return [*sentences, *_about_suites(report), *about_details(report)]


def _about_suites(report: Report) -> list[str]:
    """What the tests of suites' means speak of; nothing without them."""
    if not report.suite_tests:
        return []
    chosen = report.statistics
    family = _sizes(suite_family_sizes(report.suite_tests))
    sentences = [
        "The mean over a suite, whose sets weigh the same, is tested by a bootstrap over test "
        f"sets, queries and seeds (studentized, {chosen.resamples:,} resamples); Holm corrects "
        f"these tests in a family of their own, {family}. A verdict speaks of other test sets "
        f"like these. Won, tied, lost: sets whose means differ by {chosen.margin:g} or more, or by "
        "less."
    ]
    for suite, tests in report.suite_tests.items():
        sets = max(test.sets for rows in tests.values() for test in rows.values())
        if sets < FEWEST_SETS:
            sentences.append(f"{suite} has {sets} sets, too few to say anything of other sets.")
        elif sets < FEW_SETS:
            sentences.append(
                f"{suite} has {sets} sets, which is few: only a difference that is large and alike "
                "on all of them is found, and other sets may well come out otherwise."
            )
    return sentences


def _sizes(sizes: Mapping[str, int]) -> str:
    """How many tests each measure's family holds, in words."""
    words = [f"{n:,} test{'s' * (n != 1)} of {measure}" for measure, n in sizes.items()]
    return ", ".join(words) or "no test"


def _markdown(table: Table) -> str:
    ruler = [" --- " if i < table.left else " ---: " for i in range(len(table.heads))]
    rows = ["| " + " | ".join(map(markdown_cell, row)) + " |" for row in [table.heads, *table.body]]
    return "\n".join([rows[0], "|" + "|".join(ruler) + "|", *rows[1:]])


def _print(console: Console, table: Table) -> None:
    from rich.table import Table as Drawn

    drawn = Drawn(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for i, head in enumerate(table.heads):
        justify: Literal["left", "right"] = "left" if i < table.left else "right"
        drawn.add_column(rich_text(head), justify=justify, overflow="fold")
    for i, row in enumerate(table.body):
        style = "bold" if i in table.bold else ""
        drawn.add_row(*(_drawn(cell, style) for cell in row))
    console.print(drawn)


def _drawn(cell: str, style: str) -> Text:
    """The cell, its interval on a line of its own."""
    interval = _INTERVAL.fullmatch(cell)
    lines = interval.groups() if interval else (cell,)
    return rich_text("", style).append("\n").join(rich_text(line, style) for line in lines)


def _listed(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences)


def _failures(report: Report) -> list[str]:
    return [f"FAILED {row.name}: {row.error}" for row in report.failed]
