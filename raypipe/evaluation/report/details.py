"""What a report says of rows beside their tests: values at other depths, and what a query took."""

from __future__ import annotations

import math

from raypipe.evaluation.comparison import tested
from raypipe.evaluation.report.contents import Report, SetFacts
from raypipe.evaluation.report.tables import NO_VALUE, Table, figure, seconds
from raypipe.evaluation.results import Row


def details_of(report: Report, test_set: SetFacts) -> dict[str, Table]:
    """Heading to the table of what a row reaches at other depths, and of what a query takes."""
    tables = {
        "At other depths, from one scoring at the largest": by_depth(report, test_set),
        "What a query took": costs(report, test_set),
    }
    return {heading: table for heading, table in tables.items() if table is not None}


def by_depth(report: Report, test_set: SetFacts) -> Table | None:
    """Rows x numbers of candidates re-ranked: the first tested measure; None without a curve."""
    lines = [line for line in report.lines[test_set.name] if line.means]
    curves = {line.row.name: mean_curve(line.row, test_set.name) for line in lines}
    depths = sorted({depth for curve in curves.values() for depth in curve})
    if not depths:
        return None
    measure = next(filter(tested, test_set.measures))
    for line in lines:
        if line.row.kind == "first_stage":  # it re-ranks none
            curves[line.row.name] = dict.fromkeys(depths, line.means[measure])
    body = [
        [name, *(figure(curve[d]) if d in curve else NO_VALUE for d in depths)]
        for name, curve in curves.items()
        if curve
    ]
    return Table([f"{measure}, candidates re-ranked:", *map(str, depths)], body, 1)


def mean_curve(row: Row, test_set: str) -> dict[int, float]:
    """Candidates re-ranked -> mean over the row's seeds; empty without a curve."""
    seeds = row.depths.get(test_set, ())
    common = [depth for depth in (seeds[0] if seeds else ()) if all(depth in s for s in seeds)]
    return {depth: math.fsum(seed[depth] for seed in seeds) / len(seeds) for depth in common}


def costs(report: Report, test_set: SetFacts) -> Table | None:
    """Rows x what a query took; None where nothing is known."""
    known = {
        line.row.name: cost
        for line in report.lines[test_set.name]
        if (cost := line.row.costs.get(test_set.name)) is not None
    }
    if not known:
        return None
    asked = any(cost.requests for cost in known.values())
    body = [
        [
            name,
            seconds(cost.milliseconds),
            _amount(cost.pairs),
            *[_amount(cost.requests)] * asked,
            f"{cost.weights / 1e6:,.0f}" if cost.weights else NO_VALUE,
        ]
        for name, cost in known.items()
    ]
    heads = ["model", "ms", "pairs", *["LLM requests"] * asked, "MB of weights"]
    return Table(heads, body, 1)


def _amount(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0") if value else NO_VALUE


def about_details(report: Report) -> list[str]:
    """What depths and costs say; nothing without them."""
    sentences = []
    if any(row.depths for row in report.rows):
        sentences.append(
            "At other depths fewer candidates are re-ranked, by the scores of the largest depth; "
            "mixes and ensembles keep its scales, and listwise teachers are left out."
        )
    if any(row.costs for row in report.rows):
        sentences.append(
            "What a query took is the scoring's time over its queries, with the loading of the "
            "model, without first stage and vectors, on the machine that scored: compare what one "
            "machine did. Weights are as stored; in bf16 they take half of the memory of fp32."
        )
    return sentences
