"""Systems side by side, set by set: means, intervals, tests against references, verdicts.

Queries are the sample, as in the field, and so are the seeds of a row that was trained with several
(`spread`): equal recipes come out as different in alpha of the cases, whatever their seeds did.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from raypipe.config import nearest, twice_in
from raypipe.evaluation.bootstrap import interval, matrix
from raypipe.evaluation.equivalence import TURNED, smallest_margin, tost, verdict
from raypipe.evaluation.results import Line, PerQuery, Row, Statistics, Versus
from raypipe.evaluation.significance import effect_size, holm, paired_test, permutation_test
from raypipe.evaluation.spread import Values

Pair = tuple[str, str, str]
"""(test set, row, reference)."""


@dataclass(frozen=True)
class JudgedSet:
    """The rows of one test set, and what is tested there."""

    test_set: str
    rows: Sequence[Row]
    """Every row has the same measures on the same queries, or an error."""
    measures: Sequence[str]
    """Names that every row without an error has."""
    references: Sequence[str] = ()
    """Names of rows; the name of a failed row leaves the tests against it out."""


def compare(
    sets: Sequence[JudgedSet],
    statistics: Statistics = Statistics(),  # noqa: B008 - frozen
) -> dict[str, list[Line]]:
    """Test set -> its lines, in the order of the rows.

    Holm corrects each measure within one family, the tests of all rows on all test sets against
    all references; the letters compare all pairs of rows within a test set, a family of their own.
    The oracle reads the judgements, so no test involves it. Judged@k does not measure
    effectiveness, so no test reads it.

    Raises:
        ValueError: two rows of a set share a name, a reference is unknown, an oracle or named
            twice, or a row has other measures or other queries than the first row.
    """
    for judged in sets:
        _check(judged)
    tests = _tests(sets, statistics)
    return {judged.test_set: _lines(judged, tests, statistics) for judged in sets}


def family_sizes(lines: Mapping[str, Sequence[Line]]) -> dict[str, int]:
    """Measure -> how many tests against references Holm corrects together.

    Two references are one test, though both lines show it; a test without a p is none.
    """
    pairs: dict[str, set[tuple[str, frozenset[str]]]] = {}
    for test_set, of_set in lines.items():
        for line in of_set:
            for reference, tests in line.versus.items():
                for measure, test in tests.items():
                    if not math.isnan(test.p):
                        pair = (test_set, frozenset({line.row.name, reference}))
                        pairs.setdefault(measure, set()).add(pair)
    return {measure: len(tested_pairs) for measure, tested_pairs in pairs.items()}


def _lines(
    judged: JudgedSet, tests: Mapping[str, Mapping[Pair, Versus]], statistics: Statistics
) -> list[Line]:
    values = {
        measure: {
            row.name: values_of(row, judged.test_set, measure)
            for row in judged.rows
            if not row.error
        }
        for measure in judged.measures
    }
    labels = dict(zip([row.name for row in judged.rows], _labels(), strict=False))
    better = {
        m: _letters(judged.rows, v, labels, statistics) if tested(m) else {}
        for m, v in values.items()
    }
    return [
        Line(
            row=row,
            label=labels[row.name],
            means={m: float(v[row.name].mean()) for m, v in values.items() if row.name in v},
            seed_means={
                m: v[row.name].mean(axis=1).tolist() for m, v in values.items() if row.name in v
            },
            intervals={
                m: interval(v[row.name].tolist(), statistics.level, statistics.resamples)
                for m, v in values.items()
                if row.name in v
            },
            versus=_versus_of(judged, row.name, tests),
            letters={m: better[m].get(row.name, "") for m in judged.measures},
        )
        for row in judged.rows
    ]


def _versus_of(
    judged: JudgedSet, row: str, tests: Mapping[str, Mapping[Pair, Versus]]
) -> dict[str, dict[str, Versus]]:
    """Reference -> measure -> the tests of a row, of references that it is tested against."""
    by_reference = {
        reference: {
            measure: tests[measure][pair]
            for measure in judged.measures
            if (pair := (judged.test_set, row, reference)) in tests.get(measure, {})
        }
        for reference in judged.references
    }
    return {reference: found for reference, found in by_reference.items() if found}


def tested(measure: str) -> bool:
    """Whether the measure is one of effectiveness, which tests compare."""
    return not measure.startswith("Judged")


def values_of(row: Row, test_set: str, measure: str) -> Values:
    """[S, Q], queries by id: rows pair up, and reading order does not change the bootstrap."""
    seeds = [per_query[measure] for per_query in row.results[test_set]]
    return matrix([[value for _, value in sorted(values.items())] for values in seeds])


def _tests(sets: Sequence[JudgedSet], statistics: Statistics) -> dict[str, dict[Pair, Versus]]:
    """Measure -> pair -> the tests, corrected; two references are shown from both sides."""
    raw: dict[str, dict[Pair, Versus]] = {}
    for judged in sets:
        for measure in filter(tested, judged.measures):
            for row, base in pairs(judged):
                versus = _versus(
                    values_of(row, judged.test_set, measure),
                    values_of(base, judged.test_set, measure),
                    statistics,
                )
                pair = (judged.test_set, row.name, base.name)
                raw.setdefault(measure, {})[pair] = versus
    tests = {}
    for measure, family in raw.items():
        tests[measure] = dict(zip(family, _corrected([*family.values()], statistics), strict=True))
        tests[measure] |= {(s, b, a): mirrored(t) for (s, a, b), t in tests[measure].items()}
    return tests


def pairs(judged: JudgedSet) -> Iterable[tuple[Row, Row]]:
    """(row, reference): each row against each reference; two references are paired once."""
    rows = {row.name: row for row in judged.rows if not row.error and row.kind != "oracle"}
    for place, reference in enumerate(judged.references):
        if reference in rows:
            for name, row in rows.items():
                if name not in judged.references[: place + 1]:
                    yield row, rows[reference]


def mirrored(test: Versus) -> Versus:
    """The tests of b against a from those of a against b."""
    low, high = test.interval
    return replace(
        test,
        difference=0.0 - test.difference,
        interval=(0.0 - high, 0.0 - low),
        effect=0.0 - test.effect,
        verdict=TURNED.get(test.verdict, test.verdict),
    )


def _versus(values: Values, base: Values, statistics: Statistics) -> Versus:
    test = paired_test(values, base)
    return Versus(
        difference=test.difference,
        interval=test.interval(statistics.level),
        effect=effect_size(values, base),
        p=test.p,
        p_permutation=permutation_test(values, base, statistics.resamples),
        p_equivalence=tost(test, statistics.margin),
        smallest_margin=smallest_margin(test, statistics.alpha),
        detectable=test.detectable(statistics.alpha),
    )


def _corrected(raw: Sequence[Versus], statistics: Statistics) -> list[Versus]:
    columns = [
        holm([test.p for test in raw]),
        holm([test.p_permutation for test in raw]),
        holm([test.p_equivalence for test in raw]),
    ]
    return [
        replace(
            test,
            p_holm=p,
            p_permutation_holm=permuted,
            p_equivalence_holm=equivalent,
            verdict=verdict(test.difference, p, equivalent, statistics.alpha),
        )
        for test, p, permuted, equivalent in zip(raw, *columns, strict=True)
    ]


def _letters(
    rows: Sequence[Row],
    values: Mapping[str, Values],
    labels: Mapping[str, str],
    statistics: Statistics,
) -> dict[str, str]:
    names = [row.name for row in rows if row.kind != "oracle" and row.name in values]
    pairs = list(itertools.combinations(names, 2))
    tests = [paired_test(values[first], values[second]) for first, second in pairs]
    adjusted = holm([test.p for test in tests])
    beaten: dict[str, list[str]] = {name: [] for name in names}
    for (first, second), test, p in zip(pairs, tests, adjusted, strict=True):
        if p < statistics.alpha:
            better, worse = (first, second) if test.difference > 0 else (second, first)
            beaten[better].append(labels[worse])
    return {name: "".join(sorted(worse, key=_label_order)) for name, worse in beaten.items()}


def _labels() -> Iterable[str]:
    """a .. z, then a1 .. z1, a2 ..."""
    for turn in itertools.count():
        yield from (f"{letter}{turn or ''}" for letter in "abcdefghijklmnopqrstuvwxyz")


def _label_order(label: str) -> tuple[int, str]:
    return int(label[1:] or 0), label[0]


def _check(judged: JudgedSet) -> None:
    names = [row.name for row in judged.rows]
    if twice := twice_in(names):
        raise ValueError(
            f"expected one row per name, found {twice!r} several times; rename one of the rows"
        )
    if twice := twice_in(judged.references):
        raise ValueError(f"expected every reference once, found {twice!r} twice; name it once")
    for reference in judged.references:
        if reference not in names:
            raise ValueError(f"reference {reference!r}: no such row{nearest(reference, names)}")
    sound = [row for row in judged.rows if not row.error]
    for row in sound:
        if row.name in judged.references and row.kind == "oracle":
            raise ValueError(f"reference {row.name!r} is an oracle; test against a model")
        if not row.results.get(judged.test_set):
            raise ValueError(
                f"row {row.name!r} has no results on {judged.test_set!r}; evaluate the row there, "
                "or give it an error"
            )
        for per_query in row.results[judged.test_set]:
            _check_seed(row, per_query, sound[0], judged.test_set, judged.measures)


def _check_seed(
    row: Row, per_query: PerQuery, first: Row, test_set: str, measures: Sequence[str]
) -> None:
    queries = first.results[test_set][0]
    for measure in measures:
        if measure not in per_query:
            raise ValueError(
                f"row {row.name!r} has no measure {measure!r}{nearest(measure, per_query)}"
            )
        other = per_query[measure].keys() ^ queries.get(measure, {}).keys()
        if other or not per_query[measure]:
            raise ValueError(
                f"row {row.name!r}, {measure}: expected the queries of row {first.name!r}, "
                f"found {len(other)} that only one of them has, such as {sorted(other)[:3]}; "
                "evaluate all rows with the same qrels"
            )
