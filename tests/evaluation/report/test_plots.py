"""What plots show, and what they leave out."""

from __future__ import annotations

from dataclasses import replace

from report_rows import FULL, report

from raypipe.evaluation.report import plots
from raypipe.evaluation.report.contents import Report
from raypipe.evaluation.report.page import to_html


def test_pareto_front():
    assert plots.pareto([(1, 0.5), (2, 0.4), (3, 0.7), (3, 0.6), (0.5, 0.1)]) == [4, 0, 2]
    assert plots.pareto([]) == []


def test_the_cost_axis_says_whose_seconds():
    def label(one: Report) -> str:
        return plots.cost(one, one.sets[0]).axes[0].get_xlabel()

    plain = "seconds of training, all stages, per seed; the line is the Pareto front"
    assert label(FULL) == plain
    three = replace(FULL.rows[4], name="3 seeds: MiniLM | mnrl", kind="derived", seconds=28.2)
    assert label(report(rows=(*FULL.rows, three))) == (
        f"{plain}\nrows without training: the sum over all seeds that they use"
    )


def test_plots_are_the_same_every_time():
    one = FULL.sets[0]
    for draw in (plots.intervals, plots.cost):
        assert plots.svg(draw(FULL, one)) == plots.svg(draw(FULL, one))
    first, second = (plots.differences(FULL, one, "MiniLM | mnrl") for _ in range(2))
    assert plots.svg(first) == plots.svg(second)
    assert plots.png(plots.intervals(FULL, one)).startswith(b"\x89PNG")


def test_rows_that_share_a_stage_share_its_curves():
    def drawn(figure) -> dict[str, dict[str, int]]:
        """Title of each column to labels, and how many curves of losses there are."""
        found = {}
        for axis in figure.axes[: len(figure.axes) // 2]:
            labels = axis.get_legend_handles_labels()[1]
            found[axis.get_title()] = {"labels": labels, "lines": len(axis.lines)}
        return found

    both = "MiniLM | mnrl; MiniLM | mnrl > kl"
    assert drawn(plots.curves(FULL)) == {
        "contrastive": {"labels": [both], "lines": 3},
        "distil": {"labels": ["MiniLM | mnrl > kl", "tiny"], "lines": 4},
    }
    known = FULL.curves["MiniLM | mnrl"]
    other = replace(known[2], series={"loss": [(1, 0.5), (2, 0.4)]})
    apart = report(curves={**FULL.curves, "MiniLM | mnrl": [*known[:2], other]})
    assert drawn(plots.curves(apart))["contrastive"] == {"labels": both.split("; "), "lines": 6}


def test_plots_of_what_is_not_there_are_none():
    plain = report(rows=report().rows[:4], references=(), curves={})
    assert plots.cost(plain, plain.sets[0]) is None
    assert plots.differences(plain, plain.sets[0], "BM25") is None
    assert plots.curves(plain) is None
    assert "<svg" in to_html(plain)
