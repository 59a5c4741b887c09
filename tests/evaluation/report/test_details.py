"""Tables and plots of rows at other depths, and of what a query took."""

from __future__ import annotations

from dataclasses import replace

from report_rows import FULL, rows

from raypipe.evaluation.report import plots
from raypipe.evaluation.report.details import about_details, by_depth, costs, details_of
from raypipe.evaluation.report.text import to_markdown

FIRST, SECOND = FULL.sets


def test_means_over_seeds_at_every_depth():
    table = by_depth(FULL, FIRST)
    assert table is not None
    assert table.heads == ["nDCG@10, candidates re-ranked:", "10", "20", "50"]
    # the first stage re-ranks none; .5, .5625 and .625 with 0, 1 and 2 sixteenths more
    assert table.body == [
        ["BM25", ".438", ".438", ".438"],
        ["MiniLM | mnrl", ".562", ".625", ".688"],
    ]


def test_a_depth_that_a_seed_lacks_is_left_out():
    short = {"test": [{10: 0.5}, {10: 0.25, 20: 0.5}]}
    given = [replace(row, depths=short) if row.depths else row for row in rows()]
    table = by_depth(replace(FULL, rows=tuple(given)), FIRST)
    assert table is not None
    assert table.heads[1:] == ["10"] and table.body[1] == ["MiniLM | mnrl", ".375"]


def test_what_a_query_took():
    table = costs(FULL, FIRST)
    assert table is not None
    assert table.heads == ["model", "ms", "pairs", "LLM requests", "MB of weights"]
    assert table.body == [
        ["RankVicuna", "2,350", "–", "12", "–"],  # noqa: RUF001 - a dash, as tables print it
        ["MiniLM | mnrl", "12", "50", "–", "90"],  # noqa: RUF001
    ]


def test_without_a_language_model_there_is_no_column_of_requests():
    given = [row for row in rows() if row.name != "RankVicuna"]
    table = costs(replace(FULL, rows=tuple(given)), FIRST)
    assert table is not None and "LLM requests" not in table.heads


def test_sets_without_curve_and_cost_have_neither_table_nor_plot():
    assert details_of(FULL, SECOND) == {} and plots.by_depth(FULL, SECOND) is None
    bare = replace(FULL, rows=tuple(replace(row, depths={}, costs={}) for row in rows()))
    assert about_details(bare) == []


def test_the_plot_has_a_line_per_row_and_one_of_the_first_stage():
    figure = plots.by_depth(FULL, FIRST)
    (axis,) = figure.axes
    first, curve = axis.lines
    assert first.get_label() == "BM25" and curve.get_label() == "MiniLM | mnrl"
    assert list(curve.get_xdata()) == [10, 20, 50]
    assert list(curve.get_ydata()) == [0.5625, 0.625, 0.6875]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["10", "20", "50"]


def test_the_markdown_has_both_tables():
    text = to_markdown(FULL)
    assert "At other depths, from one scoring at the largest" in text
    assert "What a query took" in text and "listwise teachers are left out" in text
