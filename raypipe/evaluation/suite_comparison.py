"""The mean over a suite, row against reference: what the test says, sets won, tied and lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from raypipe.evaluation.comparison import JudgedSet, pairs, tested, values_of
from raypipe.evaluation.equivalence import TURNED, verdict
from raypipe.evaluation.results import Row, Statistics, SuiteVersus
from raypipe.evaluation.significance import holm
from raypipe.evaluation.suite_test import suite_test

Pair = tuple[str, str, str]
"""(suite, row, reference)."""
Matches = Sequence[tuple[JudgedSet, Row, Row]]
"""Test sets of a suite, each with the same row and the same reference."""
SuiteTests = Mapping[str, Mapping[str, Mapping[str, SuiteVersus]]]
"""Suite -> reference -> row -> what is known of the mean's difference."""


def compare_suites(suites: Mapping[str, Sequence[JudgedSet]], statistics: Statistics) -> SuiteTests:
    """Test the mean of the first measure, over the sets that row and reference both have.

    A suite of one set is left out: its mean is that set's. Holm corrects the tests of a measure in
    one family, over suites, rows and references. Two references are tested once.

    Raises:
        ValueError: a row has other seeds on one set of a suite than on another.
    """
    raw = {
        pair: _versus(matches, statistics)
        for suite, sets in suites.items()
        for pair, matches in _matches(suite, sets).items()
        if len(matches) > 1
    }
    found: dict[str, dict[str, dict[str, SuiteVersus]]] = {}
    for (suite, row, reference), test in _corrected(raw, statistics).items():
        of_suite = found.setdefault(suite, {})
        of_suite.setdefault(reference, {})[row] = test
        if any(row in judged.references for judged in suites[suite]):
            of_suite.setdefault(row, {}).setdefault(reference, _mirrored(test))
    return found


def suite_family_sizes(tests: SuiteTests) -> dict[str, int]:
    """Measure -> how many tests of suites' means Holm corrects together."""
    counted: dict[str, set[tuple[str, frozenset[str]]]] = {}
    for suite, references in tests.items():
        for reference, rows in references.items():
            for row, test in rows.items():
                if not math.isnan(test.p):
                    pair = (suite, frozenset({row, reference}))
                    counted.setdefault(test.measure, set()).add(pair)
    return {measure: len(found) for measure, found in counted.items()}


def _matches(suite: str, sets: Sequence[JudgedSet]) -> dict[Pair, list[tuple[JudgedSet, Row, Row]]]:
    found: dict[Pair, list[tuple[JudgedSet, Row, Row]]] = {}
    for judged in sets:
        for row, reference in pairs(judged) if tested(judged.measures[0]) else ():
            found.setdefault((suite, row.name, reference.name), []).append((judged, row, reference))
    return found


def _versus(matches: Matches, statistics: Statistics) -> SuiteVersus:
    left = [values_of(row, judged.test_set, judged.measures[0]) for judged, row, _ in matches]
    right = [values_of(base, judged.test_set, judged.measures[0]) for judged, _, base in matches]
    test = suite_test(left, right, statistics.resamples)
    gaps = [float(a.mean() - b.mean()) for a, b in zip(left, right, strict=True)]
    won = sum(gap >= statistics.margin for gap in gaps)
    lost = sum(gap <= -statistics.margin for gap in gaps)
    return SuiteVersus(
        measure=" / ".join(dict.fromkeys(judged.measures[0] for judged, _, _ in matches)),
        sets=len(gaps),
        difference=test.difference,
        interval=test.interval(statistics.level),
        won=won,
        tied=len(gaps) - won - lost,
        lost=lost,
        p=test.p,
        p_equivalence=test.equivalence(statistics.margin),
    )


def _corrected(raw: Mapping[Pair, SuiteVersus], statistics: Statistics) -> dict[Pair, SuiteVersus]:
    """The tests with Holm's correction and their verdicts."""
    tests: dict[Pair, SuiteVersus] = {}
    for measure in dict.fromkeys(test.measure for test in raw.values()):
        family = {pair: test for pair, test in raw.items() if test.measure == measure}
        p_holm = holm([test.p for test in family.values()])
        equivalent = holm([test.p_equivalence for test in family.values()])
        for (pair, test), p, same in zip(family.items(), p_holm, equivalent, strict=True):
            said = verdict(test.difference, p, same, statistics.alpha)
            tests[pair] = replace(test, p_holm=p, p_equivalence_holm=same, verdict=said)
    return tests


def _mirrored(test: SuiteVersus) -> SuiteVersus:
    """The test of b against a from that of a against b."""
    low, high = test.interval
    return replace(
        test,
        difference=0.0 - test.difference,
        interval=(0.0 - high, 0.0 - low),
        won=test.lost,
        lost=test.won,
        verdict=TURNED.get(test.verdict, test.verdict),
    )
