"""The page: what it shows, that it needs nothing else, and that no text in it is markup."""

from __future__ import annotations

import html.parser
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from report_rows import FULL, GOLDEN, TRIALS, report, without_drawings

from raypipe.evaluation.report.contents import Report, SearchedTrial
from raypipe.evaluation.report.page import to_html

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def text() -> str:
    return to_html(FULL)


class Page(html.parser.HTMLParser):
    """Open tags and outside addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        self.attributes |= {k for k, _ in attrs}
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_the_page_stands_alone(text):
    page = Page()
    page.feed(text)
    assert page.open == []
    outside = [a for a in page.addresses if not a.startswith("#")]
    assert outside == ["http://127.0.0.1:5000/#/experiments/1/runs/abc"]
    # two sets with intervals, cost and differences each, and one figure of curves
    assert page.tags.count("svg") == 7
    assert "<script>\ndocument.querySelectorAll('th')" in text  # not escaped
    assert "Pareto" in text and "broken" in text
    for verdict in ("better", "inconclusive"):
        assert f'class="word {verdict}"' in text


def test_the_page_is_the_golden_file(text):
    assert without_drawings(text).split() == (GOLDEN / "page.html").read_text("utf-8").split()


def test_a_search_shows_its_trials():
    text = to_html(report(mode="search", searched=TRIALS, references=()))
    assert "<h2>Trials</h2>" in text and "best so far" in text and ">hinge</td>" in text


EVIL = "<script>alert('1')</script>"


def evil_report() -> Report:
    """A script wherever a user's string can stand; the drawings have names and stages too."""
    plain = report()
    stages = tuple(replace(stage, name=EVIL, loss=EVIL) for stage in plain.rows[5].stages)
    names = {"BM25": EVIL, "MiniLM | mnrl": f"trained {EVIL}"}
    rows = [replace(r, name=names.get(r.name, r.name)) for r in plain.rows]
    rows[5] = replace(rows[5], stages=stages)
    rows[7] = replace(rows[7], error=EVIL)
    test_set = replace(plain.sets[0], title=(EVIL, EVIL), sources=(EVIL,), suite=EVIL)
    curve = replace(plain.curves["tiny"][0], stage=EVIL)
    return report(
        name=EVIL,
        rows=tuple(rows),
        sets=(test_set, plain.sets[1]),
        references=(names["MiniLM | mnrl"],),
        notes=(EVIL,),
        links={EVIL: [EVIL, f"https://x/{EVIL}", f'https://x/" onclick="{EVIL}', "javascript:f()"]},
        curves={EVIL: [curve]},
        searched=(SearchedTrial(0, {EVIL: EVIL}, EVIL, 0.4), TRIALS[0]),
    )


def test_text_in_the_page_is_text():
    text = to_html(evil_report())
    page = Page()
    page.feed(text)
    assert page.open == [] and page.tags.count("script") == 1 and "onclick" not in page.attributes
    assert "<script>alert" not in text and "&lt;script&gt;" in text
    assert not any(address.startswith("javascript:") for address in page.addresses)


def test_a_wheel_holds_the_template():
    """Built packages hold what pyproject names; the tests read the source tree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["raypipe.evaluation.report"]
    (template,) = (ROOT / "raypipe/evaluation/report").glob("*.j2")
    assert any(template.match(pattern) for pattern in patterns)


def test_each_reference_has_its_table_and_its_plot():
    two = to_html(report(references=("MiniLM | mnrl", "BM25")))
    for name in ("MiniLM | mnrl", "BM25"):
        assert two.count(f"<h3>Against {name}</h3>") == 2
        assert two.count(f"<h3>Differences per query to {name}</h3>") == 2
    assert two.count('<tr class="reference">') == 4
