"""The tables of a comparison, as cells.

A figure is shown with three decimals and without its leading zero, as is the habit in the field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raypipe.evaluation.comparison import tested
from raypipe.evaluation.report.contents import LABELS, Report, SetFacts
from raypipe.evaluation.results import Line, Row, Versus
from raypipe.evaluation.slices import Sliced

NO_VALUE = "–"  # noqa: RUF001 - an en dash, as tables print it
MARK = "†"


@dataclass(frozen=True)
class Table:
    """Cells as text; the first `left` columns hold words, the others figures."""

    heads: list[str]
    body: list[list[str]]
    left: int
    bold: tuple[int, ...] = ()
    """Indices of the references' rows."""


def effectiveness(report: Report, test_set: SetFacts) -> Table:
    """Rows x measures on one test set: mean, interval, letters, the published value."""
    lines, references = report.lines[test_set.name], report.references_on(test_set)
    tied = any(test_set.name in line.row.tied for line in lines)
    heads = ["", "model", "stages", "seeds"]
    for measure in test_set.measures:
        heads.append(measure)
        if test_set.published.get(measure):
            heads.append("published")
    trained = any(line.row.pairs is not None or line.row.seconds is not None for line in lines)
    heads += [*["tied lists"] * tied, *["pairs", "seconds"] * trained]
    body = []
    for line in lines:
        row = line.row
        name = f"{row.name} {MARK}" if row.name in references else row.name
        cells = [line.label, name, _stages(line), str(len(row.seeds) or NO_VALUE)]
        for measure in test_set.measures:
            cells.append(_mean(line, measure))
            if (published := test_set.published.get(measure)) is not None and published:
                value = published.get(row.name)
                cells.append(NO_VALUE if value is None else figure(value))
        cells += [_count(row.tied.get(test_set.name, 0))] * tied
        body.append([*cells, *[_count(row.pairs), seconds(row.seconds)] * trained])
    bold = tuple(i for i, line in enumerate(lines) if line.row.name in references)
    return Table(heads, body, 3, bold)


def sliced(groups: Sliced) -> Table:
    """Rows x groups of a slice, with each row's worst group."""
    heads = ["model", "worst", *(f"{group} ({size:,})" for group, size in groups.sizes.items())]
    body = [
        [row, groups.worst(row)]
        + [figure(means[group]) if group in means else NO_VALUE for group in groups.sizes]
        for row, means in groups.means.items()
    ]
    return Table(heads, body, 2)


def against(
    report: Report, test_set: SetFacts, reference: str, measures: Sequence[str] = ()
) -> Table | None:
    """Rows x tested measures: what the tests against a reference say; None without tests.

    Args:
        measures: the measures to show; empty shows all tested ones.
    """
    lines = report.lines[test_set.name]
    base = next(line.row for line in lines if line.row.name == reference)
    body = []
    for measure in measures or [m for m in test_set.measures if tested(m)]:
        for line in lines:
            if (test := line.versus.get(reference, {}).get(measure)) is not None:
                speaks_of = _speaks_of(line.row, base)
                body.append([line.row.name, measure, *_tests(test), speaks_of])
    if not body:
        return None
    difference = f"model minus {reference}"
    heads = ["model", "measure", difference, "p (t)", "p (perm.)", "effect d", "p (TOST)"]
    return Table([*heads, "smallest margin", "verdict", "speaks of"], body, 2)


def _speaks_of(row: Row, reference: Row) -> str:
    """Whether a verdict holds for a recipe, or only for a checkpoint that one seed led to."""
    trained = [len(arm.seeds) for arm in (row, reference) if arm.seeds]
    if not trained:
        return "these runs"
    return "this checkpoint" if min(trained) == 1 else "the recipe"


def _tests(test: Versus) -> list[str]:
    low, high = test.interval
    return [
        f"{signed(test.difference)} [{figure(low)}, {figure(high)}]",
        p_value(test.p_holm),
        p_value(test.p_permutation_holm),
        NO_VALUE if math.isnan(test.effect) else f"{test.effect:+.2f}",
        p_value(test.p_equivalence_holm),
        figure(test.smallest_margin),
        test.verdict,
    ]


def training(report: Report) -> Table | None:
    """Rows x stages: the columns of a controlled comparison; None if nothing was trained."""
    texts = any(stage.texts for row in report.rows for stage in row.stages)
    body = [
        [
            row.name,
            stage.name,
            stage.loss,
            f"{stage.lr:.2g}",
            f"{stage.pairs_per_step:,.0f}",
            _count(stage.steps),
            _count(stage.queries),
            _count(stage.pairs),
            *[_count(stage.texts) if stage.texts else NO_VALUE] * texts,
            stage.groups[:8],
        ]
        for row in report.rows
        for stage in row.stages
        if row.kind == "trained"
    ]
    heads = ["model", "stage", "loss", "lr", "pairs per step", "steps", "queries seen"]
    heads += ["pairs seen", *["texts read"] * texts, "groups"]
    return Table(heads, body, 3) if body else None


def searched(report: Report) -> Table | None:
    """The trials of a search, the best on validation first; None for a comparison."""
    if not report.searched:
        return None
    keys = list(dict.fromkeys(key for trial in report.searched for key in trial.settings))
    ranked = sorted(report.searched, key=lambda trial: (trial.value is None, -(trial.value or 0.0)))
    body = [
        [
            str(trial.number),
            trial.state,
            *(trial.settings.get(key, NO_VALUE) for key in keys),
            NO_VALUE if trial.value is None else figure(trial.value),
        ]
        for trial in ranked
    ]
    return Table(["trial", "state", *keys, "validation"], body, 2 + len(keys))


def overview(report: Report) -> Table | None:
    """Rows x test sets, the first measure of each, and the mean of every suite."""
    if len(report.sets) < 2:
        return None
    means = report.suite_means()
    heads = ["model", *(f"{test_set.name} {test_set.measures[0]}" for test_set in report.sets)]
    heads += [f"mean of {suite}" for suite in means]
    body = []
    lines = {
        test_set.name: {line.row.name: line for line in report.lines[test_set.name]}
        for test_set in report.sets
    }
    for row in report.rows:
        cells = [row.name]
        for test_set in report.sets:
            line = lines[test_set.name].get(row.name)
            value = line.means.get(test_set.measures[0]) if line else None
            cells.append(NO_VALUE if value is None else figure(value))
        for mean_by_row in means.values():
            mean = mean_by_row.get(row.name)
            cells.append(NO_VALUE if mean is None else figure(mean[0]))
        body.append(cells)
    return Table(heads, body, 1)


def suites_against(report: Report, reference: str) -> Table | None:
    """Rows x suites: what is known of the suite's mean; None without a test against the row."""
    rows = {row.name: row for row in report.rows}
    body = []
    for suite, tests in report.suite_tests.items():
        for row in report.rows:
            if (test := tests.get(reference, {}).get(row.name)) is not None:
                others = "these sets" if math.isnan(test.p) else "other sets"
                low, high = test.interval
                cells = [
                    row.name,
                    f"{suite} {test.measure}",
                    str(test.sets),
                    f"{signed(test.difference)} [{figure(low)}, {figure(high)}]",
                    p_value(test.p_holm),
                    p_value(test.p_equivalence_holm),
                    f"{test.won} / {test.tied} / {test.lost}",
                    test.verdict,
                    f"{_speaks_of(row, rows[reference])}, {others}",
                ]
                body.append(cells)
    heads = ["model", "mean of", "sets", f"model minus {reference}", "p (bootstrap)", "p (TOST)"]
    return Table([*heads, "won / tied / lost", "verdict", "speaks of"], body, 2) if body else None


def figure(value: float) -> str:
    """Three decimals without the leading zero."""
    if not math.isfinite(value):
        return NO_VALUE
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def signed(value: float) -> str:
    """A difference: always with its sign, otherwise as `figure`."""
    text = f"{value:+.3f}"
    return text.replace("0.", ".", 1) if text[1:].startswith("0.") else text


def p_value(value: float | None) -> str:
    """A p value; a dash where there is none."""
    if value is None or math.isnan(value):
        return NO_VALUE
    return "<.001" if value < 0.001 else figure(value)


def _stages(line: Line) -> str:
    if line.row.error:
        return "failed"
    stages = " > ".join(stage.name for stage in line.row.stages)
    if not stages:
        return LABELS[line.row.kind]
    return stages + (" (reused)" if line.row.reused else "")


def _mean(line: Line, measure: str) -> str:
    if measure not in line.means:
        return NO_VALUE
    mean = figure(line.means[measure])
    if not tested(measure):  # how much of a list was judged needs no interval, the table is wide
        return mean
    low, high = line.intervals[measure]
    letters = f" {line.letters[measure]}" if line.letters[measure] else ""
    return f"{mean}{letters} [{figure(low)}, {figure(high)}]"


def _count(value: int | None) -> str:
    return NO_VALUE if value is None else f"{value:,}"


def seconds(value: float | None) -> str:
    if value is None:
        return NO_VALUE
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
