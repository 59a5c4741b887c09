"""Regenerate the golden files with: python tests/evaluation/test_report.py"""

from __future__ import annotations

import functools
import html.parser
import io
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from report_rows import report
from rich.console import Console

from raypipe.evaluation import plots
from raypipe.evaluation.page import to_html
from raypipe.evaluation.report import Report, Searched
from raypipe.evaluation.rows import Statistics
from raypipe.evaluation.tables import figure, p_value, signed
from raypipe.evaluation.text import print_report, to_markdown

GOLDEN = Path(__file__).parent / "golden"
few = functools.partial(report, statistics=Statistics(resamples=200))
"""A report of which no figure of the bootstrap is read: the default takes seconds."""


@pytest.fixture(scope="module")
def full() -> Report:
    return report()


def printed(one: Report, width: int) -> str:
    out = io.StringIO()
    print_report(one, Console(file=out, width=width))
    return out.getvalue()


def test_markdown_is_the_golden_file(full):
    assert to_markdown(full) == (GOLDEN / "report.md").read_text("utf-8")


def test_json_is_the_golden_file(full):
    got = json.loads(json.dumps(full.json(), allow_nan=False))
    golden = json.loads((GOLDEN / "report.json").read_text("utf-8"))
    assert nearly(got) == nearly(golden)


def nearly(value):
    """Rounded: the last bit is libm's."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {k: nearly(v) for k, v in value.items()}
    return [nearly(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("width", [150, 90])
def test_the_terminal_loses_nothing(full, width):
    narrow, wide = printed(full, width), printed(full, 400)
    assert max(map(len, narrow.splitlines())) <= width
    assert sorted("".join(narrow.split())) == sorted("".join(wide.split()))
    if width == 150:
        assert narrow == (GOLDEN / "table.txt").read_text("utf-8")


def test_everything_that_a_reader_needs_is_there(full):
    text = to_markdown(full)
    for part in (
        "FAILED broken: FloatingPointError: the loss is nan",
        "could not be had: no network",
        "Someone et al. 2025, table 2",
        "| published |",
        "smallest margin",
        "before Holm's correction, which the verdict has",
        "queries seen",
        "pairs per step",
        "a1b2c3d4",
        "mean of trec-dl",
        "Against MiniLM | mnrl",
    ):
        assert part in text, part


def test_without_reference_nothing_is_tested(full):
    text = to_markdown(few(reference=None))
    assert "verdict" not in text and "TOST" not in text
    assert "Letters: rows that this one is significantly better than" in text


def test_a_search_claims_nothing(full):
    trials = (
        Searched(0, {"lr": "0.001"}, "finished", 0.4),
        Searched(1, {"lr": "0.1", "loss": "hinge"}, "pruned", 0.1),
        Searched(2, {"lr": "7"}, "failed", None),
        Searched(3, {"lr": "0.002"}, "finished", 0.6),
    )
    one = few(mode="search", searched=trials, reference=None)
    text = to_markdown(one)
    assert "nothing is tested" in text and "verdict" not in text
    assert {v for lines in one.lines.values() for x in lines for v in x.versus.values()} == {None}
    order = [row.split("|")[1].strip() for row in text.splitlines() if re.match(r"\| \d \|", row)]
    assert order == ["3", "0", "1", "2"]
    assert "best so far" in to_html(one)


def test_suite_means_are_over_the_sets_of_a_suite(full):
    means = full.suite_means()
    assert means.keys() == {"trec-dl"}
    for line in full.lines["splade"]:
        if line.means:
            assert means["trec-dl"][line.row.name] == (pytest.approx(line.means["RR@10"]), 1)
    assert "broken" not in means["trec-dl"]


class Page(html.parser.HTMLParser):
    """Open tags and outside addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]


def test_the_page_stands_alone(full):
    page = Page()
    text = to_html(full)
    page.feed(text)
    assert page.open == []
    outside = [a for a in page.addresses if not a.startswith("#")]
    assert outside == ["http://127.0.0.1:5000/#/experiments/1/runs/abc"]
    # two sets with intervals, cost and differences each, and one figure of curves
    assert page.tags.count("svg") == 7
    assert "<script>" in text and "Pareto" in text and "broken" in text
    for verdict in ("better", "inconclusive"):
        assert f'class="word {verdict}"' in text


def test_text_in_the_page_is_text():
    evil = replace(report().rows[0], name="<script>alert(1)</script>")
    text = to_html(few(rows=(evil, *report().rows[1:]), name="a <b> c"))
    assert "<script>alert" not in text and "a &lt;b&gt; c" in text


def test_pareto_front():
    assert plots.pareto([(1, 0.5), (2, 0.4), (3, 0.7), (3, 0.6), (0.5, 0.1)]) == [4, 0, 2]
    assert plots.pareto([]) == []


def test_the_cost_axis_says_whose_seconds(full):
    def label(one: Report) -> str:
        return plots.cost(one, one.sets[0]).axes[0].get_xlabel()

    plain = "seconds of training, all stages, per seed; the line is the Pareto front"
    assert label(full) == plain
    three = replace(full.rows[4], name="3 seeds: MiniLM | mnrl", kind="derived", seconds=28.2)
    assert label(few(rows=(*full.rows, three))) == (
        f"{plain}\nrows without training: the sum over all seeds that they use"
    )


def test_plots_are_the_same_every_time(tmp_path, full):
    one = full.sets[0]
    for draw in (plots.intervals, plots.cost, plots.differences):
        assert plots.svg(draw(full, one)) == plots.svg(draw(full, one))
    plots.save_png(tmp_path / "a.png", plots.intervals(full, one))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_rows_that_share_a_stage_share_its_curves(full):
    def drawn(figure) -> dict[str, dict[str, int]]:
        """Title of each column to labels, and how many curves of losses there are."""
        found = {}
        for axis in figure.axes[: len(figure.axes) // 2]:
            labels = axis.get_legend_handles_labels()[1]
            found[axis.get_title()] = {"labels": labels, "lines": len(axis.lines)}
        return found

    both = "MiniLM | mnrl; MiniLM | mnrl > kl"
    assert drawn(plots.curves(full)) == {
        "contrastive": {"labels": [both], "lines": 3},
        "distil": {"labels": ["MiniLM | mnrl > kl", "tiny"], "lines": 4},
    }
    known = full.curves["MiniLM | mnrl"]
    other = replace(known[2], series={"loss": [(1, 0.5), (2, 0.4)]})
    apart = few(curves={**full.curves, "MiniLM | mnrl": [*known[:2], other]})
    assert drawn(plots.curves(apart))["contrastive"] == {"labels": both.split("; "), "lines": 6}


def test_plots_of_what_is_not_there_are_none():
    plain = few(rows=report().rows[:4], reference=None, curves={})
    assert plots.cost(plain, plain.sets[0]) is None
    assert plots.differences(plain, plain.sets[0]) is None
    assert plots.curves(plain) is None
    assert "<svg" in to_html(plain)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, ".123"), (1.0, "1.000"), (-0.0504, "-.050"), (math.inf, "–")],  # noqa: RUF001
)
def test_figures(value, text):
    assert figure(value) == text


def test_small_figures():
    assert (p_value(0.0001), p_value(0.05), p_value(None)) == ("<.001", ".050", "–")  # noqa: RUF001
    assert (signed(0.0123), signed(-0.5), signed(1.25)) == ("+.012", "-.500", "+1.250")


def test_importing_the_package_loads_no_heavy_library():
    modules = "runs", "measures", "significance", "report", "page", "plots", "tables", "suites"
    heavy = "scipy", "statsmodels", "matplotlib", "rich", "ir_measures", "pandas", "torch", "ray"
    code = "".join(f"import raypipe.evaluation.{m}\n" for m in modules)
    code += f"import sys\nprint(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _regenerate() -> None:
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "report.md").write_text(to_markdown(report()), "utf-8")
    (GOLDEN / "report.json").write_text(json.dumps(report().json(), indent=1) + "\n", "utf-8")
    (GOLDEN / "table.txt").write_text(printed(report(), 150), "utf-8")


if __name__ == "__main__":
    _regenerate()
