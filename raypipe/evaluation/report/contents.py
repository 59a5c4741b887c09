"""What a report holds, as data: rows, test sets, training histories, the trials of a search.

`tables`, `plots`, `text` and `page` show it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from raypipe.evaluation.comparison import JudgedSet, compare, family_sizes
from raypipe.evaluation.report.first_documents import ListHeads
from raypipe.evaluation.results import Line, Row, Statistics, SuiteVersus, Versus
from raypipe.evaluation.slices import Sliced, rows_by_group
from raypipe.evaluation.suite_comparison import SuiteTests, compare_suites, suite_family_sizes

LABELS = {
    "first_stage": "first stage",
    "zero_shot": "zero-shot",
    "teacher": "teacher",
    "oracle": "oracle",
    "trained": "trained",
    "derived": "no training",
    "run": "run file",
    "model": "model that exists",
}
"""Kinds of rows as tables call them."""


@dataclass(frozen=True)
class SetFacts:
    """One test set of a report: its title, its measures, what papers printed on it."""

    name: str
    title: tuple[str, ...]
    """A heading, then one line each on data, sizes and depth: what a reader judges a table by."""
    measures: tuple[str, ...]
    """Columns, the most important first."""
    suite: str = ""
    """The suite that the test set belongs to; empty if the recipe names it alone."""
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """measure -> row name -> the published value on the same data and first stage."""
    sources: tuple[str, ...] = ()
    """Papers and tables that hold the published values."""
    rows: tuple[str, ...] = ()
    """Names of the rows that were judged here; empty means all rows of the report."""
    references: tuple[str, ...] = ()
    """The rows that the tests are against where none of the report's references was judged here."""
    slices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Name of a slice -> query id -> the group that the query is in."""


@dataclass(frozen=True)
class StageHistory:
    """What a stage of one row reported during its training."""

    stage: str
    seed: int | None
    series: Mapping[str, Sequence[tuple[int, float]]]
    """Name (loss, val/MEASURE ...) -> (step, value) in order of steps."""


@dataclass(frozen=True)
class SearchedTrial:
    """One trial of a search."""

    number: int
    settings: Mapping[str, str]
    """Dotted key -> the value that the trial had."""
    state: str
    """finished, pruned, failed or invalid."""
    value: float | None
    """The trial's best validation value, or its last if it was pruned; None if it reported none."""


@dataclass(frozen=True)
class Report:
    """Everything that a page, a text or a JSON file shows of a comparison."""

    name: str
    rows: tuple[Row, ...]
    sets: tuple[SetFacts, ...]
    """The recipe's own test set first."""
    references: tuple[str, ...] = ()
    """The rows that the others are tested against."""
    statistics: Statistics = Statistics()  # noqa: RUF009 - frozen
    mode: Literal["compare", "search"] = "compare"
    """After a search nothing is tested: it stopped trials early and chose among many."""
    notes: tuple[str, ...] = ()
    """Plain sentences on missing data, failures and alarms."""
    links: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Row name -> addresses of its tracked runs."""
    curves: Mapping[str, Sequence[StageHistory]] = field(default_factory=dict)
    """Row name -> one history per stage and seed."""
    searched: tuple[SearchedTrial, ...] = ()
    """Every trial of a search; empty for a comparison."""
    origin: Mapping[str, str] = field(default_factory=dict)
    """When, where and with what the report was made: date, commit, machine."""
    first: Mapping[str, ListHeads] = field(default_factory=dict)
    """Test set -> how its rows begin, with the texts that may be shown."""
    recipes: Mapping[str, str] = field(default_factory=dict)
    """Job -> its recipe, every field, as YAML with masked addresses."""

    @cached_property
    def lines(self) -> dict[str, list[Line]]:
        """Test set -> its lines, with means, intervals and tests."""
        return compare(list(map(self._judged, self.sets)), self.statistics)

    @cached_property
    def suite_tests(self) -> SuiteTests:
        """What is known of the means over suites, of those that have several sets."""
        suites = {suite: list(map(self._judged, sets)) for suite, sets in self.suites().items()}
        return compare_suites(suites, self.statistics)

    @property
    def suite_references(self) -> list[str]:
        """The rows that means over suites are tested against."""
        return list(dict.fromkeys(name for tests in self.suite_tests.values() for name in tests))

    def suites(self) -> dict[str, list[SetFacts]]:
        """Suite -> its test sets, in order."""
        members: dict[str, list[SetFacts]] = {}
        for test_set in self.sets:
            if test_set.suite:
                members.setdefault(test_set.suite, []).append(test_set)
        return members

    def _judged(self, test_set: SetFacts) -> JudgedSet:
        references = self.references_on(test_set)
        return JudgedSet(test_set.name, self.rows_on(test_set), test_set.measures, references)

    def rows_on(self, test_set: SetFacts) -> list[Row]:
        """The rows of a test set's table."""
        return [row for row in self.rows if not test_set.rows or row.name in test_set.rows]

    def references_on(self, test_set: SetFacts) -> tuple[str, ...]:
        """The rows that a test set's tests are against; none where nothing is tested."""
        if self.mode != "compare":
            return ()
        names = {row.name for row in self.rows_on(test_set)}
        judged = tuple(name for name in self.references if name in names)
        return judged or tuple(name for name in test_set.references if name in names)

    def sliced(self, test_set: SetFacts) -> dict[str, Sliced]:
        """Name of a slice -> the first measure by group; slices without a judged query left out."""
        rows, measure = self.rows_on(test_set), test_set.measures[0]
        found = {
            name: rows_by_group(group_of, rows, test_set.name, measure)
            for name, group_of in test_set.slices.items()
        }
        return {name: groups for name, groups in found.items() if groups is not None}

    @property
    def failed(self) -> list[Row]:
        return [row for row in self.rows if row.error]

    def suite_means(self) -> dict[str, dict[str, tuple[float, int]]]:
        """Suite -> row -> (mean of the first measure over the suite's sets, number of sets)."""
        means: dict[str, dict[str, tuple[float, int]]] = {}
        for suite, members in self.suites().items():
            values: dict[str, list[float]] = {}
            for test_set in members:
                for line in self.lines[test_set.name]:
                    if line.means:
                        values.setdefault(line.row.name, []).append(
                            line.means[test_set.measures[0]]
                        )
            means[suite] = {row: (math.fsum(v) / len(v), len(v)) for row, v in values.items()}
        return means

    def json(self) -> dict[str, Any]:
        """Plain JSON values; figures in full precision, NaN and no test are null."""
        return {
            "name": self.name,
            "mode": self.mode,
            "references": list(self.references),
            "statistics": self.statistics.model_dump(),
            "notes": list(self.notes),
            "searched": [vars(trial) for trial in self.searched],
            "failed": {row.name: row.error for row in self.failed},
            "families": family_sizes(self.lines),
            "suite_families": suite_family_sizes(self.suite_tests),
            "sets": {
                test_set.name: {
                    "title": list(test_set.title),
                    "measures": list(test_set.measures),
                    "references": list(self.references_on(test_set)),
                    "suite": test_set.suite,
                    "published": {m: dict(v) for m, v in test_set.published.items()},
                    "rows": [line_json(line, test_set.name) for line in self.lines[test_set.name]],
                    "slices": {n: groups.json() for n, groups in self.sliced(test_set).items()},
                }
                for test_set in self.sets
            },
            "suites": {
                suite: {
                    row: {"mean": mean, "sets": n, "versus": self._suite_json(suite, row)}
                    for row, (mean, n) in rows.items()
                }
                for suite, rows in self.suite_means().items()
            },
        }

    def _suite_json(self, suite: str, row: str) -> dict[str, Any]:
        """Reference -> what is known of the row's mean over the suite."""
        return {
            reference: {"of": f"{row} minus {reference}", **_plain(test)}
            for reference, tests in self.suite_tests.get(suite, {}).items()
            if (test := tests.get(row)) is not None
        }


def line_json(line: Line, test_set: str) -> dict[str, Any]:
    """One row on one test set as plain JSON values."""
    row = line.row
    return {
        "name": row.name,
        "kind": row.kind,
        "stages": [stage.name for stage in row.stages],
        "seeds": list(row.seeds),
        "reused": row.reused,
        "run_digests": list(row.runs.get(test_set, ())),
        "tied_lists": row.tied.get(test_set, 0),
        "depths": [{str(d): v for d, v in seed.items()} for seed in row.depths.get(test_set, ())],
        "cost": asdict(row.costs[test_set]) if test_set in row.costs else None,
        "error": row.error or None,
        "metrics": dict(line.means),
        "seed_metrics": {m: list(v) for m, v in line.seed_means.items()},
        "intervals": {m: list(bounds) for m, bounds in line.intervals.items()},
        "versus": {
            reference: {
                m: {"of": f"{row.name} minus {reference}", **_plain(v)} for m, v in tests.items()
            }
            for reference, tests in line.versus.items()
        },
        "better_than": dict(line.letters),
        "label": line.label,
        "pairs": row.pairs,
        "seconds": row.seconds,
        "training": [
            {
                **{key: value for key, value in vars(stage).items() if key != "texts" or value},
                "pairs_per_step": stage.pairs_per_step,
            }
            for stage in row.stages
        ],
    }


def _plain(test: Versus | SuiteVersus) -> dict[str, Any]:
    values = vars(test) | {"interval": [_number(end) for end in test.interval]}
    return {k: _number(v) if isinstance(v, float) else v for k, v in values.items()}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
