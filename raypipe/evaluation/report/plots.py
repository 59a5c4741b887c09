"""Plots of a comparison, drawn without a display."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from raypipe.evaluation.comparison import tested
from raypipe.evaluation.report.contents import LABELS, Report, SetFacts, StageHistory
from raypipe.evaluation.report.details import mean_curve
from raypipe.evaluation.report.per_query import seed_means
from raypipe.evaluation.report.tables import MARK
from raypipe.evaluation.results import Kind, Line
from raypipe.names import plot_text

COLOURS: dict[Kind, str] = {  # told apart by everyone (Okabe and Ito)
    "first_stage": "#7f7f7f",
    "zero_shot": "#e69f00",
    "teacher": "#cc79a7",
    "oracle": "#000000",
    "trained": "#0072b2",
    "derived": "#56b4e9",
    "run": "#0072b2",
    "model": "#d55e00",
}
_CYCLE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
_STYLES = ("-", "--", ":", "-.")


@contextlib.contextmanager
def _no_tex() -> Iterator[None]:
    """In the body, names are no TeX whatever the user's matplotlibrc says, and a character that a
    font lacks is no warning: the page shows it."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context({"text.usetex": False}):
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


@_no_tex()
def png(figure: Any) -> bytes:
    """The figure at 150 dots per inch."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=150)
    return out.getvalue()


@_no_tex()
def svg(figure: Any) -> str:
    """The figure as an element for an HTML page, with its text as text."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "raypipe"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


@_no_tex()
def intervals(report: Report, test_set: SetFacts) -> Any:
    """Means with their intervals for the first two measures, best row of the first on top.

    The mean of a reference is a dashed line.
    """
    measures = test_set.measures[:2]
    lines = [line for line in report.lines[test_set.name] if line.means]
    lines.sort(key=lambda line: line.means[measures[0]])
    figure = _figure(3.2 + 3.6 * len(measures), 1.4 + 0.34 * len(lines))
    axes = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axis, measure in zip(axes, measures, strict=True):
        _dots(axis, lines, measure, report, test_set)
    names = [plot_text(line.row.name) for line in lines]
    references = report.references_on(test_set)
    marks = [f" {MARK}" if line.row.name in references else "" for line in lines]
    axes[0].set_yticks(range(len(lines)), map("".join, zip(names, marks, strict=True)))
    kinds = [kind for kind in COLOURS if any(line.row.kind == kind for line in lines)]
    handles = [_mark(axes[0], kind) for kind in kinds]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), frameon=False
        )
    return figure


def _dots(
    axis: Any, lines: Sequence[Line], measure: str, report: Report, test_set: SetFacts
) -> None:
    for y, line in enumerate(lines):
        low, high = line.intervals[measure]
        colour = COLOURS[line.row.kind]
        axis.plot([low, high], [y, y], color=colour, linewidth=1.8, alpha=0.55)
        axis.plot([line.means[measure]], [y], "o", color=colour, markersize=6)
        seeds = line.seed_means[measure]
        if len(seeds) > 1:
            axis.plot(seeds, [y] * len(seeds), "|", color=colour, markersize=9, alpha=0.7)
        if line.row.name in report.references_on(test_set):
            axis.axvline(line.means[measure], color=colour, linestyle="--", linewidth=0.9)
    percent = f"{100 * report.statistics.level:g} %"
    axis.set_xlabel(f"{measure}, mean and {percent} interval")
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points (cost, value) that no other beats in both, by rising cost.

    >>> pareto([(1, .5), (2, .4), (3, .7), (3, .6)])
    [0, 2]
    """
    best, front = -math.inf, []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > best:
            best = points[i][1]
            front.append(i)
    return front


@_no_tex()
def cost(report: Report, test_set: SetFacts) -> Any | None:
    """Effectiveness against training time, with the Pareto front; None with fewer than two rows
    that were trained: one is no comparison.

    Rows that cost no training are horizontal lines. The oracle is left out: it is no system.
    """
    measure = test_set.measures[0]
    lines = [
        line for line in report.lines[test_set.name] if line.means and line.row.kind != "oracle"
    ]
    priced = [line for line in lines if line.row.seconds]
    if len(priced) < 2:
        return None
    figure = _figure(7.2, 4.6)
    axis = figure.subplots()
    points = [(float(line.row.seconds or 0), line.means[measure]) for line in priced]
    for number, (line, (x, y)) in enumerate(zip(priced, points, strict=True)):
        axis.plot([x], [y], "o", color=COLOURS[line.row.kind], markersize=6)
        beside = (6, 4 if number % 2 else -9)  # rows of one length stand above each other
        name = plot_text(line.row.name)
        axis.annotate(name, (x, y), xytext=beside, textcoords="offset points", fontsize=8)
    front = [points[i] for i in pareto(points)]
    axis.step(*zip(*front, strict=True), where="post", color="#d55e00", linewidth=1, alpha=0.8)
    names: dict[float, list[str]] = {}  # rows of one height have one label
    for line in lines:
        if not line.row.seconds:
            axis.axhline(line.means[measure], color=COLOURS[line.row.kind], linestyle=":")
            names.setdefault(round(line.means[measure], 3), []).append(plot_text(line.row.name))
    for height, of_height in names.items():
        axis.annotate(
            ", ".join(of_height),
            (1, height),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
        )
    if max(x for x, _ in points) > 10 * min(x for x, _ in points):
        axis.set_xscale("log")
    label = "seconds of training, all stages, per seed; the line is the Pareto front"
    if any(line.row.kind == "derived" for line in priced):
        label += "\nrows without training: the sum over all seeds that they use"
    axis.set_xlabel(label)
    axis.set_ylabel(measure)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


@_no_tex()
def by_depth(report: Report, test_set: SetFacts) -> Any | None:
    """The first tested measure by the number of candidates re-ranked, the first stage a dashed
    line; None without a curve."""
    lines = [line for line in report.lines[test_set.name] if line.means]
    drawn = [(line, curve) for line in lines if (curve := mean_curve(line.row, test_set.name))]
    if not drawn:
        return None
    measure = next(filter(tested, test_set.measures))
    figure = _figure(7.2, 4.2 + 0.18 * len(drawn))
    axis = figure.subplots()
    for line in lines:
        if line.row.kind == "first_stage":
            look = {"color": COLOURS["first_stage"], "linestyle": "--", "linewidth": 0.9}
            axis.axhline(line.means[measure], label=plot_text(line.row.name), **look)
    for number, (line, curve) in enumerate(drawn):
        colour, style = _CYCLE[number % len(_CYCLE)], _STYLES[number // len(_CYCLE) % len(_STYLES)]
        look = {"color": colour, "linestyle": style, "linewidth": 1.3, "markersize": 4}
        axis.plot(*zip(*sorted(curve.items()), strict=True), "o", **look)
        axis.lines[-1].set_label(plot_text(line.row.name))
    depths = sorted({depth for _, curve in drawn for depth in curve})
    axis.set_xscale("log")
    axis.set_xticks(depths, list(map(str, depths)))
    axis.minorticks_off()
    axis.set_xlabel("candidates re-ranked")
    axis.set_ylabel(measure)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    _legend(figure, [axis], columns=2)
    return figure


@_no_tex()
def curves(report: Report) -> Any | None:
    """Loss and validation of every stage; None where nothing was reported.

    One colour per row, one line style per seed. Rows that share a stage share its lines.
    """
    stages = list(
        dict.fromkeys(
            history.stage for histories in report.curves.values() for history in histories
        )
    )
    first = report.sets[0].measures[0]
    names = dict.fromkeys((f"val/{first}", f"val/{first.partition('@')[0]}"))  # AP@100, and AP
    if not stages:
        return None
    figure = _figure(4.6 * len(stages), 6.0)
    axes = figure.subplots(2, len(stages), squeeze=False)
    for column, stage in enumerate(stages):
        for number, (rows, histories) in _histories(report, stage).items():
            colour = _CYCLE[number % len(_CYCLE)]
            for i, history in enumerate(histories):
                look = {"color": colour, "linestyle": _STYLES[i % len(_STYLES)], "linewidth": 1.1}
                label = rows if i == 0 else None
                _draw(axes[0][column], _smooth(history, "loss"), label, look)
                for name in names:
                    _draw(axes[1][column], list(history.series.get(name, ())), label, look, "o")
        axes[0][column].set_title(plot_text(stage), fontsize=10)
        axes[0][column].set_ylabel("training loss")
        axes[1][column].set_ylabel(f"validation {first}")
        axes[1][column].set_xlabel("step")
        for axis in (axes[0][column], axes[1][column]):
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
    _legend(figure, axes.flat)
    return figure


def _legend(figure: Any, axes: Any, columns: int = 3) -> None:
    """One entry for each label and colour: long names may look alike."""
    handles: dict[tuple[str, str], Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault((label, handle.get_color()), handle)
    labels = [label for label, _ in handles]
    look = {"loc": "outside lower center", "ncols": columns, "frameon": False, "fontsize": 8}
    figure.legend(list(handles.values()), labels, **look)


def _histories(report: Report, stage: str) -> dict[int, tuple[str, list[StageHistory]]]:
    """Number of the first row -> (names of all rows as drawn, their histories), per training.

    Rows that share a trained stage have equal histories.
    """
    trainings: dict[int, tuple[str, list[StageHistory]]] = {}
    for number, (row, row_histories) in enumerate(report.curves.items()):
        histories = [history for history in row_histories if history.stage == stage]
        if not histories:
            continue
        twin = next((n for n, (_, other) in trainings.items() if other == histories), None)
        if twin is None:
            trainings[number] = (plot_text(row), histories)
        else:
            trainings[twin] = (f"{trainings[twin][0]}; {plot_text(row)}", histories)
    return trainings


def _draw(
    axis: Any, points: Any, label: str | None, look: dict[str, Any], mark: str | None = None
) -> None:
    if points:
        axis.plot(*zip(*points, strict=True), marker=mark, markersize=3, label=label, **look)


def _smooth(history: StageHistory, name: str, most: int = 60) -> list[tuple[float, float]]:
    """Means of neighbouring points, `most` of them at most: single steps are noise."""
    points = list(history.series.get(name, ()))
    size = max(1, math.ceil(len(points) / most))
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [
        (math.fsum(p[0] for p in part) / len(part), math.fsum(p[1] for p in part) / len(part))
        for part in parts
    ]


def compared(report: Report, test_set: SetFacts, reference: str) -> list[str]:
    """The rows that are tested against a reference and differ from it on some query."""
    measure = next(filter(tested, test_set.measures), None)
    lines = {line.row.name: line for line in report.lines[test_set.name]}
    rows = [n for n, line in lines.items() if measure in line.versus.get(reference, {})]
    if measure is None or not rows:
        return []
    base = seed_means(report, reference, test_set.name, measure)
    return [n for n in rows if seed_means(report, n, test_set.name, measure) != base]


@_no_tex()
def differences(report: Report, test_set: SetFacts, reference: str) -> Any | None:
    """Per-query differences to a reference, the largest first, one panel for each of `compared`;
    None without any."""
    names = compared(report, test_set, reference)
    measure = next(filter(tested, test_set.measures), None)
    if not names or measure is None:
        return None
    base = seed_means(report, reference, test_set.name, measure)
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = _figure(3.4 * columns, 0.6 + 1.9 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axis, name in zip(axes.flat, names, strict=False):
        values_by_query = seed_means(report, name, test_set.name, measure)
        values = sorted((values_by_query[q] - base[q] for q in base), reverse=True)
        for sign, tint in ((1, "#0072b2"), (-1, "#d55e00")):  # a shape each: bars are one a query
            axis.stairs([max(sign * v, 0.0) * sign for v in values], fill=True, color=tint)
        won, lost = sum(v > 0 for v in values), sum(v < 0 for v in values)
        axis.set_title(f"{plot_text(name)}\n{won} better, {lost} worse", fontsize=8)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_xlim(0, len(values))  # the page's script finds a query by its place
        axis.set_xticks([])
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    figure.supylabel(f"{measure} per query, model minus {plot_text(reference)}", fontsize=9)
    return figure


@_no_tex()
def searched(report: Report) -> Any:
    """Validation value of every trial of a search, and the best so far."""
    figure = _figure(7.2, 3.4)
    axis = figure.subplots()
    trials = [trial for trial in report.searched if trial.value is not None]
    trials.sort(key=lambda trial: trial.number)
    for state, mark in (("finished", "o"), ("pruned", "x")):
        points = [(trial.number, trial.value) for trial in trials if trial.state == state]
        if points:
            axis.plot(*zip(*points, strict=True), mark, color="#0072b2", label=state)
    best, line = -math.inf, []
    for trial in trials:
        if trial.state == "finished":
            best = max(best, trial.value or 0.0)
            line.append((trial.number, best))
    if line:
        axis.step(*zip(*line, strict=True), where="post", color="#d55e00", label="best so far")
    axis.set_xlabel("trial")
    axis.set_ylabel("validation")
    if trials:  # matplotlib warns of a legend without labels
        axis.legend(frameon=False, fontsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _mark(axis: Any, kind: Kind) -> Any:
    return axis.plot([], [], "o", color=COLOURS[kind], label=LABELS[kind])[0]
