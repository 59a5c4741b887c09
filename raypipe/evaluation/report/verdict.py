"""What a comparison found, in one sentence."""

from __future__ import annotations

import math

from raypipe.evaluation.comparison import mirrored, tested
from raypipe.evaluation.report.contents import Report, SetFacts
from raypipe.evaluation.report.tables import figure, p_value
from raypipe.evaluation.results import Line, Row, Versus
from raypipe.names import counted


def verdict_sentence(report: Report, best: str) -> str:
    """How good the job's model is on the recipe's own test set, and whether that can be known.

    It stands beside the first stage where the report tests that, else beside its first reference.
    p is Holm's.

    Args:
        best: the row of the model that the job hands out; empty if none was trained.
    """
    test_set = report.sets[0]
    lines = {line.row.name: line for line in report.lines[test_set.name] if line.means}
    if best not in lines:
        return "no model was trained to its end; nothing can be said of one"
    measure = next(filter(tested, test_set.measures), test_set.measures[0])
    queries = _queries(lines[best].row, test_set, measure)
    for other in _opponents(report, test_set, best):
        if other in lines and (test := _test(lines, best, other, measure)) is not None:
            return f"{_subject(lines[best])} {_finding(test, other, measure, queries, report)}"
    return (
        f"{_subject(lines[best])} has {measure} {figure(lines[best].means[measure])} on {queries}"
        f"{_others(lines, best, measure)}; {_untested(report)}"
    )


def _opponents(report: Report, test_set: SetFacts, best: str) -> list[str]:
    first = [row.name for row in report.rows if row.kind == "first_stage"]
    return [name for name in (*first, *report.references_on(test_set)) if name != best]


def _test(lines: dict[str, Line], row: str, other: str, measure: str) -> Versus | None:
    """The test of a row against another one, from the side that the report has."""
    if (test := lines[row].versus.get(other, {}).get(measure)) is not None:
        return test
    test = lines[other].versus.get(row, {}).get(measure)
    return None if test is None else mirrored(test)


def _queries(row: Row, test_set: SetFacts, measure: str) -> str:
    return counted(len(row.results[test_set.name][0][measure]), "query")


def _subject(line: Line) -> str:
    seeds = len(line.row.seeds)
    if seeds == 1:
        return f"this checkpoint of {line.row.name} (one seed)"
    return f"{line.row.name} ({seeds} seeds)" if seeds else line.row.name


def _finding(test: Versus, other: str, measure: str, queries: str, report: Report) -> str:
    """What the test says, from `is` on."""
    if test.difference == 0 and test.detectable == 0:
        return f"ranks as {other} does: no {measure} of {queries} differs"
    away = f"{figure(abs(test.difference))} {measure}"
    away += f" {'above' if test.difference > 0 else 'below'} {other} on {queries}"
    if not math.isfinite(test.detectable):
        return f"is {away}, which no test can judge"
    shows = "are too few to show any"
    if test.detectable < 1:
        shows = f"could show {figure(test.detectable)}"
    tail = f"; these queries {shows}"
    if test.verdict == "equivalent":
        within = f"within {report.statistics.margin:g} {measure}"
        return f"is equal to {other} {within} on {queries} (by {figure(test.difference)}){tail}"
    if test.verdict == "inconclusive":
        return f"is {away}, which may be chance (p {p_value(test.p_holm)}){tail}"
    return f"is {away}, p {p_value(test.p_holm)}{tail}"


def _others(lines: dict[str, Line], best: str, measure: str) -> str:
    """The first stages' means."""
    others = [line for name, line in lines.items() if name != best]
    first = [line for line in others if line.row.kind == "first_stage"]
    return "".join(f", {line.row.name} {figure(line.means[measure])}" for line in first)


def _untested(report: Report) -> str:
    if report.mode == "search":
        return "a search tests nothing: compare the settings that it chose in a sweep"
    return "nothing is tested without a `reference`"
