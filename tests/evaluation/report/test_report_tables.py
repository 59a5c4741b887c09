"""Figures as the cells of a table show them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tracked_jobs import BASE, report, row

from raypipe.evaluation.report.contents import SetFacts
from raypipe.evaluation.report.tables import (
    NO_VALUE,
    against,
    effectiveness,
    figure,
    overview,
    p_value,
    signed,
    training,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, ".123"), (1.0, "1.000"), (-0.0504, "-.050"), (math.inf, "–")],  # noqa: RUF001
)
def test_figures(value, text):
    assert figure(value) == text


def test_small_figures():
    assert (p_value(0.0001), p_value(0.05), p_value(None)) == ("<.001", ".050", "–")  # noqa: RUF001
    assert (signed(0.0123), signed(-0.5), signed(1.25)) == ("+.012", "-.500", "+1.250")


def test_tied_lists_stand_beside_the_rows_where_there_are_any():
    plain = report("a", BASE, row("cl", "trained", 0.4, [1]))
    (facts,) = plain.sets
    assert "tied lists" not in effectiveness(plain, facts).heads
    silent = replace(row("silent", "trained", 0.2, [1]), tied={"test": 6})
    table = effectiveness(replace(plain, rows=(*plain.rows, silent)), facts)
    column = table.heads.index("tied lists")
    assert [cells[column] for cells in table.body] == ["0", "0", "6"]
    assert all(len(cells) == len(table.heads) for cells in table.body)


def test_texts_stand_beside_the_pairs_of_bi_encoders():
    pairs = row("cl", "trained", 0.4, [1])
    plain = report("a", BASE, pairs)
    assert "texts read" not in training(plain).heads
    (stage,) = pairs.stages
    vectors = replace(pairs, name="vectors", stages=(replace(stage, texts=900),))
    both = replace(plain, rows=(*plain.rows, vectors))
    table = training(both)
    column = table.heads.index("texts read")
    assert [cells[column] for cells in table.body] == [NO_VALUE, "900"]
    assert all(len(cells) == len(table.heads) for cells in table.body)
    rows = both.json()["sets"]["test"]["rows"]
    assert [[s.get("texts") for s in r["training"]] for r in rows] == [[], [None], [900]]


def test_a_difference_names_both_sides():
    two = report("a", BASE, row("cl", "trained", 0.4, [1]))
    table = against(two, two.sets[0], "cl")
    cells = ["BM25", "nDCG@10", "-.200 [-.200, -.200]"]
    assert table.heads[2] == "model minus cl" and table.body[0][:3] == cells
    assert (table.heads[-1], table.body[0][-1]) == ("speaks of", "this checkpoint")
    (bm25, _) = two.json()["sets"]["test"]["rows"]
    assert bm25["versus"]["cl"]["nDCG@10"]["of"] == "BM25 minus cl"


def test_the_overview_has_a_dash_where_a_row_was_not_judged():
    both = replace(
        report("a", BASE, row("cl", "trained", 0.4, [1])),
        sets=(
            SetFacts("test", ("a",), ("nDCG@10",), rows=("BM25", "cl")),
            SetFacts("dl19", ("b",), ("nDCG@10",), rows=("BM25",)),
        ),
    )
    first, *others = both.rows
    more = replace(first, results={**first.results, "dl19": first.results["test"]})
    table = overview(replace(both, rows=(more, *others)))
    assert table.body == [["BM25", ".300", ".300"], ["cl", ".500", NO_VALUE]]
