"""The page: what it shows, that it needs nothing else, and that no text in it is markup."""

from __future__ import annotations

import html as html_module
import html.parser
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from report_rows import FULL, GOLDEN, TRIALS, report, without_drawings

from raypipe.evaluation.report import per_query
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
    # two sets with intervals, cost and differences each, a curve over depths, and one of stages
    assert page.tags.count("svg") == 8
    assert "<script>\nfunction sorted(th){" in text  # not escaped
    assert "Pareto" in text and "broken" in text
    for verdict in ("better", "inconclusive"):
        assert f'class="word {verdict}"' in text


def test_the_page_is_the_golden_file(text):
    assert without_drawings(text).split() == (GOLDEN / "page.html").read_text("utf-8").split()


def test_a_search_shows_its_trials():
    text = to_html(report(mode="search", searched=TRIALS, references=()))
    assert '<h2 id="trials">Trials</h2>' in text and "best so far" in text and ">hinge</td>" in text


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
    assert page.open == [] and page.tags.count("script") == 3 and "onclick" not in page.attributes
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


# --- for every reader -----------------------------------------------------------------------------


def test_contents_lead_to_every_heading(text):
    headings = re.findall(r'<h2 id="([\w-]+)">', text)
    targets = re.findall(r'<a href="#([\w-]+)">', text)
    assert targets == headings and len(set(headings)) == len(headings) == text.count("<h2")


def test_the_page_says_when_where_and_of_what_it_was_made(text):
    assert "<dt>date</dt><dd>2026-01-02 03:04 UTC</dd>" in text
    assert '<pre tabindex="0">name: strategies\nseed: 1</pre>' in text


def test_every_table_can_be_scrolled_and_sorted_by_the_keyboard(text):
    heads = re.findall(r"<th [^>]*>", text)
    assert heads and all('tabindex="0" aria-sort="none"' in head for head in heads)
    regions = re.findall(r'<div class="wide"[^>]*>', text)
    assert len(regions) == text.count("<table>") > 3
    assert all('tabindex="0" role="region" aria-label="' in region for region in regions)


def test_regions_and_plots_have_names_of_their_own(text):
    labels = re.findall(r'aria-label="([^"]*)"', text)
    assert len(set(labels)) == len(labels)
    assert (
        text.count('<div class="plot" role="img" tabindex="0" aria-label="')
        == text.count("<svg")
        == 8
    )


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance of #rgb or #rrggbb."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_stands_out_from_its_ground_by_day_and_by_night(text):
    """4.5 to 1 is WCAG's AA for text of this size."""
    themes = re.findall(r":root\{([^}]*)\}", text)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+):(#\w+)", theme))
        for ground in ("page", "mark"):
            for name in colours.keys() - {"page", "mark", "line"}:
                pair = sorted(luminance(colours[n]) for n in (ground, name))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (ground, name, theme)


# --- query by query -------------------------------------------------------------------------------


def data(text: str) -> list[dict]:
    """What the page's script reads, one of each test set."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', text)
    return [json.loads(content) for content in found]


def test_values_of_every_query_and_row(text):
    first, second = data(text)
    assert (first["measure"], second["measure"]) == ("nDCG@10", "RR@10")
    assert len(first["queries"]) == 12 and len(first["rows"]) == len(first["values"]) == 7
    assert first["rows"][first["left"]] == "MiniLM | mnrl"  # the reference
    assert first["rows"][first["right"]] == "MiniLM | mnrl > kl"  # the best that is no oracle
    bm25 = dict(zip(first["queries"], first["values"][first["rows"].index("BM25")], strict=True))
    assert (bm25["q2"], bm25["q7"]) == (0.5, 1.0)
    seeds = FULL.rows[4].results["test"]
    mean = sum(per_query["nDCG@10"]["q0"] for per_query in seeds) / 3
    assert first["values"][4][0] == pytest.approx(mean, abs=5e-5)


def test_names_of_rows_and_queries_end_no_script():
    (first, _) = data(to_html(evil_report()))
    assert EVIL in first["rows"]


def test_one_row_or_too_many_values_have_no_table_and_no_plot(monkeypatch):
    alone = to_html(report(rows=FULL.rows[:1], references=(), curves={}))
    assert data(alone) == [] and "<svg" not in alone
    monkeypatch.setattr(per_query, "MOST_VALUES", 12 * 7 - 1)
    assert data(to_html(FULL)) == []


def test_rows_that_differ_on_no_query_have_no_plot_of_differences():
    twin = replace(FULL.rows[0], name="twin")
    assert "Differences per query" not in to_html(
        report(rows=(FULL.rows[0], twin), references=("BM25",), curves={})
    )


def test_how_lists_begin_and_the_texts_that_may_be_shown(text):
    first, second = data(text)
    assert first["texts"][0] == "What is <b>bold</b>?" and first["texts"][1] == ""
    bm25 = first["first"][first["rows"].index("BM25")]
    shown = [[first["docs"][place] for place in places] for places in bm25[:3]]
    assert shown == [
        [["d1", "The first document"], ["d2", "The second, with </script> in it"]],
        [["d3", ""]],
        [],
    ]
    assert not {"texts", "docs", "first"} & second.keys()  # nothing is known of this set's lists


def test_panels_of_differences_name_their_rows(text):
    """By which the script finds the query below the pointer."""
    found = re.findall(r'data-set="1" data-panels="([^"]*)"', text)
    assert [json.loads(html_module.unescape(names)) for names in found] == [
        ["MiniLM | mnrl", "BM25", "MiniLM zero-shot", "RankVicuna", "MiniLM | mnrl > kl", "tiny"]
    ]
