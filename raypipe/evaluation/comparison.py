"""Systems side by side on one test set: means, intervals, tests against references, verdicts.

Queries are the sample, as in the field, and so are the seeds of a row that was trained with several
(`spread`): equal recipes come out as different in alpha of the cases, whatever their seeds did.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from raypipe.config import nearest, twice_in
from raypipe.evaluation.bootstrap import interval, matrix
from raypipe.evaluation.equivalence import Verdict, smallest_margin, tost, verdict
from raypipe.evaluation.results import Line, PerQuery, Row, Statistics, Versus
from raypipe.evaluation.significance import effect_size, holm, paired_test, permutation_test
from raypipe.evaluation.spread import Values


def compare(
    rows: Sequence[Row],
    test_set: str,
    measures: Sequence[str],
    references: Sequence[str] = (),
    statistics: Statistics = Statistics(),  # noqa: B008 - frozen
) -> list[Line]:
    """Compare the rows on one test set; the lines keep the order of the rows.

    Holm corrects each measure within three families: the trained rows against the references; the
    first-stage, teacher, zero-shot and derived rows against them; and, for the letters, all pairs
    of rows. The oracle reads the judgements, so no test involves it. Judged@k does not
    measure effectiveness, so no test reads it.

    Args:
        rows: every row has the same measures on the same queries, or an error.
        measures: names that every row without an error has.
        references: names of rows; the name of a failed row leaves the tests against it out.

    Raises:
        ValueError: two rows share a name, a reference is unknown, an oracle or named twice, or a
            row has other measures or other queries than the first row.
    """
    _check(rows, test_set, measures, references)
    values = {
        measure: {row.name: _values(row, test_set, measure) for row in rows if not row.error}
        for measure in measures
    }
    labels = dict(zip([r.name for r in rows], _labels(), strict=False))
    tests = {m: _tests(rows, values[m], references, statistics) for m in measures if tested(m)}
    better = {m: _letters(rows, values[m], labels, statistics) if tested(m) else {} for m in values}
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
            versus=_versus_of(row.name, references, tests),
            letters={m: better[m].get(row.name, "") for m in measures},
        )
        for row in rows
    ]


def _versus_of(
    row: str, references: Sequence[str], tests: Mapping[str, Mapping[tuple[str, str], Versus]]
) -> dict[str, dict[str, Versus]]:
    """Reference -> measure -> the tests of a row, of references that it is tested against."""
    by_reference = {
        reference: {
            m: found[row, reference] for m, found in tests.items() if (row, reference) in found
        }
        for reference in references
    }
    return {reference: found for reference, found in by_reference.items() if found}


def tested(measure: str) -> bool:
    """Whether the measure is one of effectiveness, which tests compare."""
    return not measure.startswith("Judged")


def _values(row: Row, test_set: str, measure: str) -> Values:
    """[S, Q], queries by id: rows pair up, and reading order does not change the bootstrap."""
    seeds = [per_query[measure] for per_query in row.results[test_set]]
    return matrix([[value for _, value in sorted(values.items())] for values in seeds])


def _tests(
    rows: Sequence[Row],
    values: Mapping[str, Values],
    references: Sequence[str],
    statistics: Statistics,
) -> dict[tuple[str, str], Versus]:
    """(row, reference) -> the tests. Two references are tested once, and shown from both sides."""
    tests: dict[tuple[str, str], Versus] = {}
    for family in (["trained"], ["first_stage", "zero_shot", "teacher", "derived"]):
        names = [row.name for row in rows if row.kind in family and row.name in values]
        raw = {
            (name, reference): _versus(values[name], values[reference], statistics)
            for place, reference in enumerate(references)
            if reference in values
            for name in names
            if name not in references[: place + 1]
        }
        tests |= dict(zip(raw, _corrected(list(raw.values()), statistics), strict=True))
    mirrored = {(b, a): _mirrored(test) for (a, b), test in tests.items() if a in references}
    return tests | mirrored


def _mirrored(test: Versus) -> Versus:
    """The tests of b against a from those of a against b."""
    low, high = test.interval
    turned: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}
    return replace(
        test,
        difference=0.0 - test.difference,
        interval=(0.0 - high, 0.0 - low),
        effect=0.0 - test.effect,
        verdict=turned.get(test.verdict, test.verdict),
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


def _check(
    rows: Sequence[Row], test_set: str, measures: Sequence[str], references: Sequence[str]
) -> None:
    names = [row.name for row in rows]
    if twice := twice_in(names):
        raise ValueError(
            f"expected one row per name, found {twice!r} several times; rename one of the rows"
        )
    if twice := twice_in(references):
        raise ValueError(f"expected every reference once, found {twice!r} twice; name it once")
    for reference in references:
        if reference not in names:
            raise ValueError(f"reference {reference!r}: no such row{nearest(reference, names)}")
    sound = [row for row in rows if not row.error]
    for row in sound:
        if row.name in references and row.kind == "oracle":
            raise ValueError(f"reference {row.name!r} is an oracle; test against a model")
        if not row.results.get(test_set):
            raise ValueError(
                f"row {row.name!r} has no results on {test_set!r}; evaluate the row there, or give "
                "it an error"
            )
        for per_query in row.results[test_set]:
            _check_seed(row, per_query, sound[0], test_set, measures)


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
