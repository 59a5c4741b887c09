"""A comparison as data: rows, test sets and what else a table, a plot or a page shows of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from raypipe.evaluation.comparison import compare
from raypipe.evaluation.results import Line, Row, Statistics, Versus

LABELS = {
    "first_stage": "first stage",
    "zero_shot": "zero-shot",
    "teacher": "teacher",
    "oracle": "oracle",
    "trained": "trained",
    "derived": "no training",
}
"""Kinds of rows as tables call them."""


@dataclass(frozen=True)
class SetFacts:
    """A test set, as tables name it."""

    name: str
    title: tuple[str, ...]
    """Data, sizes, depth: what a reader needs to judge the table."""
    measures: tuple[str, ...]
    """Columns, the most important first."""
    suite: str = ""
    """The suite it came with; empty otherwise."""
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """measure -> row name -> the published value on the same data and first stage."""
    sources: tuple[str, ...] = ()
    """Where the published values stand."""


@dataclass(frozen=True)
class Curve:
    """What a stage of one row reported while it was trained."""

    stage: str
    seed: int | None
    series: Mapping[str, Sequence[tuple[int, float]]]
    """loss, val/MEASURE ...: (step, value) in order."""


@dataclass(frozen=True)
class Searched:
    """One trial of a search."""

    number: int
    settings: Mapping[str, str]
    """Dotted key to what it was."""
    state: str
    """finished, pruned, failed or invalid."""
    value: float | None
    """Best validation value; of a pruned trial the last one."""


@dataclass(frozen=True)
class Report:
    """Everything that is shown of a comparison."""

    name: str
    rows: tuple[Row, ...]
    sets: tuple[SetFacts, ...]
    """The recipe's own test set first."""
    reference: str | None = None
    statistics: Statistics = Statistics()  # noqa: RUF009 - frozen
    mode: Literal["compare", "search"] = "compare"
    """A search stopped trials early and chose among many: nothing is tested."""
    notes: tuple[str, ...] = ()
    """Plain sentences: data that could not be had, what failed, alarms."""
    links: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Row name to the addresses of its tracked runs."""
    curves: Mapping[str, Sequence[Curve]] = field(default_factory=dict)
    """By row name."""
    searched: tuple[Searched, ...] = ()
    """Of a search, every trial."""

    @cached_property
    def lines(self) -> dict[str, list[Line]]:
        """The finished comparison, by test set."""
        reference = self.reference if self.mode == "compare" else None
        return {
            one.name: compare(self.rows, one.name, one.measures, reference, self.statistics)
            for one in self.sets
        }

    @property
    def failed(self) -> list[Row]:
        return [row for row in self.rows if row.error]

    def suite_means(self) -> dict[str, dict[str, tuple[float, int]]]:
        """Suite -> row -> (mean over its sets of their first measure, number of sets)."""
        found: dict[str, dict[str, tuple[float, int]]] = {}
        for suite in dict.fromkeys(one.suite for one in self.sets if one.suite):
            members = [one for one in self.sets if one.suite == suite]
            values: dict[str, list[float]] = {}
            for one in members:
                for line in self.lines[one.name]:
                    if line.means:
                        values.setdefault(line.row.name, []).append(line.means[one.measures[0]])
            found[suite] = {r: (math.fsum(v) / len(v), len(v)) for r, v in values.items()}
        return found

    def json(self) -> dict[str, Any]:
        """Plain JSON values; figures in full precision, NaN and no test are null."""
        return {
            "name": self.name,
            "mode": self.mode,
            "reference": self.reference,
            "statistics": self.statistics.model_dump(),
            "notes": list(self.notes),
            "searched": [vars(one) for one in self.searched],
            "failed": {row.name: row.error for row in self.failed},
            "sets": {
                one.name: {
                    "title": list(one.title),
                    "measures": list(one.measures),
                    "suite": one.suite,
                    "published": {m: dict(v) for m, v in one.published.items()},
                    "rows": [line_json(line) for line in self.lines[one.name]],
                }
                for one in self.sets
            },
            "suites": {
                suite: {row: {"mean": mean, "sets": n} for row, (mean, n) in rows.items()}
                for suite, rows in self.suite_means().items()
            },
        }


def line_json(line: Line) -> dict[str, Any]:
    """One row on one test set as plain JSON values."""
    row = line.row
    return {
        "name": row.name,
        "kind": row.kind,
        "stages": [stage.name for stage in row.stages],
        "seeds": list(row.seeds),
        "reused": row.reused,
        "error": row.error or None,
        "metrics": dict(line.means),
        "seed_metrics": {m: list(v) for m, v in line.seed_means.items()},
        "intervals": {m: list(bounds) for m, bounds in line.intervals.items()},
        "p_holm": {m: _number(v.p_holm) if v else None for m, v in line.versus.items()},
        "versus_reference": {m: _versus(v) if v else None for m, v in line.versus.items()},
        "better_than": dict(line.letters),
        "label": line.label,
        "pairs": row.pairs,
        "seconds": row.seconds,
        "training": [
            {**vars(stage), "pairs_per_step": stage.pairs_per_step} for stage in row.stages
        ],
    }


def _versus(one: Versus) -> dict[str, Any]:
    return {k: _number(v) if isinstance(v, float) else v for k, v in vars(one).items()}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
