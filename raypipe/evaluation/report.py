"""The comparison: one row per model, with intervals and corrected tests, as text, table and plot.

A figure is shown with three decimals and without its leading zero, as is the habit in the field.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raypipe.config import nearest
from raypipe.evaluation.significance import RESAMPLES, holm, interval, paired_test

if TYPE_CHECKING:
    from rich.console import Console

Kind = Literal["first_stage", "zero_shot", "teacher", "oracle", "trained", "derived"]

_KINDS: dict[Kind, tuple[str, str]] = {  # label, colour; the colours are told apart by everyone
    "first_stage": ("first stage", "#7f7f7f"),
    "zero_shot": ("zero-shot", "#e69f00"),
    "teacher": ("teacher", "#cc79a7"),
    "oracle": ("oracle", "#000000"),
    "trained": ("trained", "#0072b2"),
    "derived": ("no training", "#56b4e9"),
}
_NO_VALUE = "–"  # noqa: RUF001 - an en dash, as tables print it
_MARK = "†"


@dataclass(frozen=True)
class Row:
    """One model of a comparison with its metrics per query."""

    name: str
    kind: Kind
    stages: tuple[str, ...]
    """Stage names in training order; empty if nothing was trained."""
    reused: bool
    """No stage was trained for this comparison; all came from the store."""
    per_query: dict[str, dict[str, float]]
    """measure -> query_id -> value."""
    pairs: int | None
    """Query-document pairs trained on, total over the stages."""
    seconds: float | None
    """Training time, total over the stages."""


@dataclass(frozen=True)
class Line:
    """One row of the finished comparison."""

    name: str
    kind: Kind
    stages: tuple[str, ...]
    reused: bool
    metrics: dict[str, float]
    """measure -> mean over queries."""
    intervals: dict[str, tuple[float, float]]
    """measure -> percentile bootstrap interval of the mean, at `level`."""
    p_holm: dict[str, float | None]
    """measure -> p against the reference after Holm; None where no test was made."""
    pairs: int | None
    seconds: float | None
    level: float


def compare(rows: Sequence[Row], reference: str | None, level: float = 0.95) -> list[Line]:
    """Means, bootstrap intervals, and paired t-tests against the reference row, Holm per measure.

    The Holm family of a measure is all rows but the reference and the oracles: an oracle reads the
    judgements, so a test of it says nothing and would only weaken the others. Judged@k is not
    effectiveness and is not tested. All intervals resample the same queries (seed 0).

    Args:
        rows: each with the same measures on the same queries.
        reference: the name of the row that the others are tested against; None makes no tests.
        level: of the intervals.

    Raises:
        ValueError: equal names, an unknown or oracle reference, other measures or other queries
            than in the first row.
    """
    _check(rows, reference)
    measures = list(rows[0].per_query) if rows else []
    tests: dict[str, dict[str, float | None]] = {m: _tests(rows, reference, m) for m in measures}
    return [
        Line(
            name=row.name,
            kind=row.kind,
            stages=row.stages,
            reused=row.reused,
            metrics={m: math.fsum(v.values()) / len(v) for m, v in row.per_query.items()},
            intervals={m: interval(_values(row, m), level) for m in measures},
            p_holm={m: tests[m].get(row.name) for m in measures},
            pairs=row.pairs,
            seconds=row.seconds,
            level=level,
        )
        for row in rows
    ]


def _values(row: Row, measure: str) -> list[float]:
    """In order of query_id: rows pair up, and reading order does not change the bootstrap."""
    return [value for _, value in sorted(row.per_query[measure].items())]


def _tests(rows: Sequence[Row], reference: str | None, measure: str) -> dict[str, float | None]:
    if reference is None or not _tested(measure):
        return {}
    base = next(_values(row, measure) for row in rows if row.name == reference)
    family = [row for row in rows if row.name != reference and row.kind != "oracle"]
    raw = [paired_test(_values(row, measure), base).p for row in family]
    adjusted = holm([None if math.isnan(p) else p for p in raw])
    return {row.name: p for row, p in zip(family, adjusted, strict=True)}


def _tested(measure: str) -> bool:
    return not measure.startswith("Judged")


def _check(rows: Sequence[Row], reference: str | None) -> None:
    names = [row.name for row in rows]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"expected one row per name, found {min(twice)!r} several times")
    if reference is not None and reference not in names:
        raise ValueError(f"reference {reference!r}: no such row{nearest(reference, names)}")
    for row in rows:
        if row.name == reference and row.kind == "oracle":
            raise ValueError(f"reference {reference!r} is an oracle; test against a model")
        if row.per_query.keys() != rows[0].per_query.keys():
            raise ValueError(
                f"row {row.name!r}: expected the measures {sorted(rows[0].per_query)} of row "
                f"{rows[0].name!r}, found {sorted(row.per_query)}; evaluate both with the same list"
            )
        for measure, values in row.per_query.items():
            other = values.keys() ^ next(iter(rows[0].per_query.values())).keys()
            if other or not values:
                raise ValueError(
                    f"row {row.name!r}, {measure}: expected the queries of row {rows[0].name!r}, "
                    f"found {len(other)} that only one of them has, such as {sorted(other)[:3]}; "
                    "evaluate all rows with the same qrels"
                )


def to_markdown(
    title_lines: Sequence[str],
    lines: Sequence[Line],
    measures: Sequence[str],
    reference: str | None,
) -> str:
    """The comparison as a Markdown table under `title_lines` (the first becomes the heading).

    Args:
        title_lines: what was compared on what: collection, number of test queries, depth. The
            others become a list.
        measures: the columns, in this order; each in every line.
        reference: as given to `compare`; its row is marked.

    Raises:
        ValueError: a measure or the reference is not in the lines.
    """
    heads, body = _cells(lines, measures, reference, "p ({})")
    table = [
        "| " + " | ".join(heads) + " |",
        "|" + "|".join(" --- " if i < 3 else " ---: " for i in range(len(heads))) + "|",
        *("| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in body),
    ]
    head, *more = title_lines or ["Comparison"]
    facts = [*(f"- {line}" for line in more), ""] if more else []
    return "\n".join([f"# {head}", "", *facts, *table, "", _note(lines, reference), ""])


def print_table(
    title_lines: Sequence[str],
    lines: Sequence[Line],
    measures: Sequence[str],
    reference: str | None,
    console: Console | None = None,
) -> None:
    """The comparison in the terminal; intervals under their means, long names fold.

    Arguments and errors as in `to_markdown`.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heads, body = _cells(lines, measures, reference, "p")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for i, head in enumerate(heads):
        narrow = {"no_wrap": True} if head == "p" else {}
        table.add_column(head, justify="left" if i < 3 else "right", overflow="fold", **narrow)  # type: ignore[arg-type]
    for line, row in zip(lines, body, strict=True):
        style = "bold" if line.name == reference else ""
        table.add_row(*(Text(cell.replace(" [", "\n[", 1), style=style) for cell in row))
    # a log file has no width of its own; 80 columns would fold every cell
    console = console or Console(width=None if sys.stdout.isatty() else 140)
    for title in title_lines:
        console.print(Text(title))
    console.print()
    console.print(table)
    console.print(Text(_note(lines, reference), style="dim"))


def plot(
    path: str | Path,
    lines: Sequence[Line],
    measures: Sequence[str],
    reference: str | None = None,
) -> None:
    """A PNG of means with their intervals for the first two measures, best row of the first on top.

    The reference's mean is a dashed line. Needs no display.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    _known(lines, measures, reference)
    shown = list(measures[:2])
    ordered = sorted(lines, key=lambda line: line.metrics[shown[0]]) if shown else []
    figure = Figure(figsize=(3.2 + 3.6 * len(shown), 1.4 + 0.34 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, max(1, len(shown)), sharey=True, squeeze=False)[0]
    for axis, measure in zip(axes, shown, strict=False):
        _dots(axis, ordered, measure, reference)
    axes[0].set_yticks(range(len(ordered)), [_name(line, reference) for line in ordered])
    kinds = [kind for kind in _KINDS if any(line.kind == kind for line in lines)]
    marks = [_mark(axes[0], kind) for kind in kinds]
    if marks:
        figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    figure.savefig(path, format="png", dpi=150)


def _dots(axis: Any, lines: Sequence[Line], measure: str, reference: str | None) -> None:
    for y, line in enumerate(lines):
        low, high = line.intervals[measure]
        colour = _KINDS[line.kind][1]
        axis.plot([low, high], [y, y], color=colour, linewidth=1.8, alpha=0.55)
        axis.plot([line.metrics[measure]], [y], "o", color=colour, markersize=6)
        if line.name == reference:
            axis.axvline(line.metrics[measure], color=colour, linestyle="--", linewidth=0.9)
    percent = f"{100 * lines[0].level:g} %" if lines else ""
    axis.set_xlabel(f"{measure}, mean and {percent} interval")
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _mark(axis: Any, kind: Kind) -> Any:
    label, colour = _KINDS[kind]
    return axis.plot([], [], "o", color=colour, label=label)[0]


def to_rows_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The comparison as plain JSON values; figures in full precision, no test is null."""
    return [
        {
            "name": line.name,
            "kind": line.kind,
            "stages": list(line.stages),
            "reused": line.reused,
            "metrics": dict(line.metrics),
            "intervals": {m: list(bounds) for m, bounds in line.intervals.items()},
            "p_holm": dict(line.p_holm),
            "pairs": line.pairs,
            "seconds": line.seconds,
        }
        for line in lines
    ]


def _cells(
    lines: Sequence[Line], measures: Sequence[str], reference: str | None, p_head: str
) -> tuple[list[str], list[list[str]]]:
    """Header and body; a p column follows each tested measure where there is a reference."""
    _known(lines, measures, reference)
    heads = ["model", "kind", "stages"]
    for measure in measures:
        heads += [measure]
        heads += [p_head.format(measure)] if reference is not None and _tested(measure) else []
    body = []
    for line in lines:
        stages = " > ".join(line.stages) + (" (reused)" if line.reused else "")
        row = [_name(line, reference), _KINDS[line.kind][0], stages.strip() or _NO_VALUE]
        for measure in measures:
            row += [_mean(line, measure)]
            row += [_p(line.p_holm[measure])] if reference is not None and _tested(measure) else []
        body.append([*row, _count(line.pairs), _seconds(line.seconds)])
    return [*heads, "pairs", "seconds"], body


def _known(lines: Sequence[Line], measures: Sequence[str], reference: str | None) -> None:
    for measure in measures:
        for line in lines:
            if measure not in line.metrics:
                near = nearest(measure, line.metrics)
                raise ValueError(f"row {line.name!r} has no measure {measure!r}{near}")
    names = [line.name for line in lines]
    if reference is not None and reference not in names:
        raise ValueError(f"reference {reference!r}: no such row{nearest(reference, names)}")


def _name(line: Line, reference: str | None) -> str:
    return f"{line.name} {_MARK}" if line.name == reference else line.name


def _note(lines: Sequence[Line], reference: str | None) -> str:
    level = f"{100 * lines[0].level:g} %" if lines else "95 %"
    note = f"[low, high]: {level} percentile bootstrap over queries, {RESAMPLES:,} resamples."
    if reference is not None:
        note += (
            f" {_MARK} reference. p: two-sided paired t-test against it on the same queries, "
            "Holm-corrected over the other rows of each measure; "
            "the oracle reads the judgements and is not tested."
        )
    return note


def _mean(line: Line, measure: str) -> str:
    mean = _figure(line.metrics[measure])
    if not _tested(measure):  # how much of a list was judged needs no interval, the table is wide
        return mean
    low, high = line.intervals[measure]
    return f"{mean} [{_figure(low)}, {_figure(high)}]"


def _figure(value: float) -> str:
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _p(value: float | None) -> str:
    if value is None or math.isnan(value):
        return _NO_VALUE
    return "<.001" if value < 0.001 else _figure(value)


def _count(value: int | None) -> str:
    return _NO_VALUE if value is None else f"{value:,}"


def _seconds(value: float | None) -> str:
    if value is None:
        return _NO_VALUE
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")
