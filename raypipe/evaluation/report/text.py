"""A comparison as text: in the terminal, and as Markdown."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from raypipe.evaluation.report.contents import Report
from raypipe.evaluation.report.tables import (
    MARK,
    Table,
    against_reference,
    effectiveness,
    overview,
    searched,
    training,
)

if TYPE_CHECKING:
    from rich.console import Console


def to_markdown(report: Report) -> str:
    """The whole report as Markdown."""
    parts = [f"# {report.name}"]
    if (table := overview(report)) is not None:
        parts += ["## All test sets", _markdown(table)]
    for test_set in report.sets:
        head, *facts = test_set.title
        parts += [f"## {head}", "\n".join(f"- {fact}" for fact in facts)]
        parts += [_markdown(effectiveness(report, test_set))]
        if (tests := against_reference(report, test_set)) is not None:
            parts += [f"Against {report.reference}:", _markdown(tests)]
        parts += [f"Published: {source}" for source in test_set.sources]
    if (trials := searched(report)) is not None:
        parts += ["## Trials", _markdown(trials)]
    if (trained := training(report)) is not None:
        parts += ["## Training", _markdown(trained)]
    parts += ["\n".join(f"- {text}" for text in [*_failures(report), *report.notes])]
    parts += ["\n".join(explanation(report))]
    return "\n\n".join(part for part in parts if part) + "\n"


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the report in the terminal; of the tests only those of each set's first measure."""
    from rich.console import Console
    from rich.text import Text

    # a log file has no width of its own; 80 columns would fold every cell
    console = console or Console(width=None if sys.stdout.isatty() else 150)
    for test_set in report.sets:
        for text in test_set.title:
            console.print(Text(text))
        console.print()
        _print(console, effectiveness(report, test_set))
        if (tests := against_reference(report, test_set, test_set.measures[:1])) is not None:
            console.print(Text(f"\nagainst {report.reference}"))
            _print(console, tests)
        console.print()
    tables = {
        "trials": searched(report),
        "training": training(report),
        "all test sets": overview(report),
    }
    for title, table in tables.items():
        if table is not None:
            console.print(Text(title))
            _print(console, table)
            console.print()
    for text in [*_failures(report), *report.notes]:
        console.print(Text(text))
    console.print(Text(" ".join(explanation(report)), style="dim"))


def explanation(report: Report) -> list[str]:
    """Sentences that tell what intervals, letters and verdicts mean."""
    chosen = report.statistics
    sentences = [
        f"[low, high]: {100 * chosen.level:g} % bootstrap over queries and seeds, "
        f"{chosen.resamples:,} resamples."
    ]
    if report.mode == "search":
        return [*sentences, "A search chose among many trials and stopped some: nothing is tested."]
    sentences.append(
        "Letters: rows that this one is significantly better than (paired t-tests of all pairs, "
        "Holm)."
    )
    if any(v for lines in report.lines.values() for line in lines for v in line.versus.values()):
        sentences.append(
            f"{MARK} reference. Tests are paired and two-sided, on per-query values averaged over "
            "seeds, Holm-corrected per measure and test set, trained rows in one family and all "
            f"others in another. Verdict at alpha {chosen.alpha:g}: equivalent means within "
            f"{chosen.margin:g} (TOST), and the smallest margin is what these queries could "
            "confirm, before Holm's correction, which the verdict has. The oracle reads the "
            "judgements and is not tested."
        )
    return sentences


def _markdown(table: Table) -> str:
    ruler = [" --- " if i < table.left else " ---: " for i in range(len(table.heads))]
    rows = ["| " + " | ".join(map(_escaped, row)) + " |" for row in [table.heads, *table.body]]
    return "\n".join([rows[0], "|" + "|".join(ruler) + "|", *rows[1:]])


def _print(console: Console, table: Table) -> None:
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for i, head in enumerate(table.heads):
        drawn.add_column(head, justify="left" if i < table.left else "right", overflow="fold")
    for i, row in enumerate(table.body):
        style = "bold" if i == table.bold else ""
        drawn.add_row(*(Text(cell.replace(" [", "\n[", 1), style=style) for cell in row))
    console.print(drawn)


def _failures(report: Report) -> list[str]:
    return [f"FAILED {row.name}: {row.error}" for row in report.failed]


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")
