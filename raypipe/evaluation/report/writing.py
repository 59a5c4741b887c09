"""A report where people want it: in the terminal, and in files."""

from __future__ import annotations

from pathlib import Path

from raypipe.evaluation.report.contents import Report
from raypipe.evaluation.report.text import print_report, to_markdown


def write(report: Report, html: Path | None, markdown: Path | None) -> None:
    """Write the files that are named, and print the report."""
    if html is not None:
        from raypipe.evaluation.report.page import to_html  # only a page has plots

        html.write_text(to_html(report), "utf-8")
    if markdown is not None:
        markdown.write_text(to_markdown(report), "utf-8")
    print_report(report)
    for kind, path in (("page", html), ("markdown", markdown)):
        if path is not None:
            print(f"{kind}: {path}")
