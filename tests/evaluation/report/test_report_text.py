"""A comparison as Markdown and in the terminal."""

from __future__ import annotations

import re

import pytest
from report_rows import FULL, GOLDEN, TRIALS, printed, report

from raypipe.evaluation.report.text import to_markdown


def test_markdown_is_the_golden_file():
    assert to_markdown(FULL) == (GOLDEN / "report.md").read_text("utf-8")


@pytest.mark.parametrize("width", [150, 90])
def test_the_terminal_loses_nothing(width):
    narrow, wide = printed(FULL, width), printed(FULL, 400)
    assert max(map(len, narrow.splitlines())) <= width
    assert sorted("".join(narrow.split())) == sorted("".join(wide.split()))
    if width == 150:
        assert narrow == (GOLDEN / "table.txt").read_text("utf-8")


def test_everything_that_a_reader_needs_is_there():
    text = to_markdown(FULL)
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
        "all rows x test sets x references, 5 tests of nDCG@10, 10 tests of RR@10.",
    ):
        assert part in text, part


def test_notes_that_a_terminal_has_are_counted_and_failures_stay():
    text = printed(report(notes=("the lr is low", "a set is missing")), 150, notes=False)
    assert "the lr is low" not in text and "2 remarks above are in the report, too" in text
    assert "FAILED broken" in text
    assert "the remark above is in the report, too" in printed(report(), 150, notes=False)
    assert "above" not in printed(report(notes=()), 150, notes=False)


def test_without_reference_nothing_is_tested():
    text = to_markdown(report(references=()))
    assert "verdict" not in text and "TOST" not in text
    assert "Letters: rows that this one is significantly better than" in text


def test_a_search_claims_nothing():
    search = report(mode="search", searched=TRIALS, references=())
    text = to_markdown(search)
    assert "nothing is tested" in text and "verdict" not in text
    lines = [line for lines in search.lines.values() for line in lines]
    assert not any(line.versus for line in lines)
    order = [row.split("|")[1].strip() for row in text.splitlines() if re.match(r"\| \d \|", row)]
    assert order == ["3", "0", "1", "2"]


def test_each_reference_has_a_table_of_its_own():
    two = report(references=("MiniLM | mnrl", "BM25"))
    text, out = to_markdown(two), printed(two, 150)
    for name in ("MiniLM \\| mnrl", "BM25"):
        assert text.count(f"model minus {name} |") == 2  # one per test set
        assert f"| {name} † |" in text
    for name in ("MiniLM | mnrl", "BM25"):
        assert out.count(f"against {name}\n") == 2 and f"Against {name}:" in text
    versus = {r["name"]: list(r["versus"]) for r in two.json()["sets"]["test"]["rows"]}
    assert versus["tiny"] == ["MiniLM | mnrl", "BM25"] and versus["BM25"] == ["MiniLM | mnrl"]
