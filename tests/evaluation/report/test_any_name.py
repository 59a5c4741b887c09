"""A report shows names from all of Unicode as text: an earlier version may have tracked them."""

from __future__ import annotations

import html.parser
import io
import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from any_names import markdown_blocks, names
from hypothesis import given, settings
from report_rows import printed, report
from rich.console import Console

from raypipe.evaluation.report.contents import Report, SearchedTrial
from raypipe.evaluation.report.page import to_html
from raypipe.evaluation.report.text import print_report, to_markdown
from raypipe.names import printable


def named_report(name: str) -> Report:
    """A comparison in which everything that somebody names has this name."""
    plain = report()
    first, trained = plain.rows[0], plain.rows[6]
    stages = tuple(replace(stage, name=name) for stage in trained.stages)
    failed = replace(plain.rows[7], name=f"failed {name}", error=name)
    suite_set = replace(plain.sets[1], name="splade", title=(name,), suite=name)
    return replace(
        plain,
        name=name,
        rows=(first, replace(trained, name=name, stages=stages), failed),
        sets=(replace(plain.sets[0], title=(name, name), sources=(name,)), suite_set),
        references=(name,),
        notes=(name,),
        links={name: [name]},
        curves={name: [replace(h, stage=name) for h in plain.curves["tiny"]]},
        searched=(SearchedTrial(0, {name: name}, "finished", 0.4),),
    )


def without_spaces(blocks: list[Any]) -> list[Any]:
    return [(tag, "".join(text.split()), markup) for tag, text, markup in blocks]


PLAIN_REPORT = named_report("plain")


@given(names.filter(str.strip).filter(lambda name: name not in ("BM25", "plain")))
@settings(max_examples=15, deadline=None)
def test_a_report_shows_any_name_as_text(name):
    comparison = named_report(name)
    expected = [
        (tag, text.replace("plain", printable(name)), markup)
        for tag, text, markup in markdown_blocks(to_markdown(PLAIN_REPORT))
    ]
    assert without_spaces(markdown_blocks(to_markdown(comparison))) == without_spaces(expected)
    out = io.TextIOWrapper(io.BytesIO(), "ascii", "replace", newline="\n")
    print_report(comparison, Console(file=out, width=10_000))
    out.flush()
    lines = out.buffer.getvalue().decode("ascii").splitlines()
    assert len(lines) == len(printed(PLAIN_REPORT, 10_000).splitlines())
    assert not any("\x1b" in line for line in lines)


class Page(html.parser.HTMLParser):
    """The tags of a page without those of its drawings, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(re.sub("<svg.*?</svg>", "<svg/>", text, flags=re.DOTALL))

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)


def test_a_page_shows_any_name_as_text():
    name = "_$x{ $a$ </svg>]]>&amp;\ud800\x00\x1b[31m\n# b"
    text = to_html(named_report(name))
    assert not set("\x00\x1b\ud800") & set(text)
    assert {tag: Page(text).tags.count(tag) for tag in ("h1", "h2", "b", "svg", "script")} == {
        **{"h1": 1, "h2": 8, "b": 0, "svg": 5, "script": 3}
    }
    drawings = re.findall("<svg.*?</svg>", text, flags=re.DOTALL)
    texts = {
        "".join(node.itertext()).strip()
        for drawing in drawings
        for node in ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")
    }
    assert len(drawings) == 5 and {printable(name), f"{printable(name)} \u2020"} <= texts
