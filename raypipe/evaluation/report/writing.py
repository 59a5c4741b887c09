"""A report where people want it: in the terminal, and in files."""

from __future__ import annotations

from pathlib import Path

from raypipe.config import ConfigError
from raypipe.evaluation.report.contents import Report
from raypipe.evaluation.report.text import print_report, to_markdown


def check_files(*files: Path | None) -> None:
    """Refuse files that cannot be written, before work.

    Raises:
        ConfigError: the folder is not there, or the file is one.
    """
    for file in files:
        if file is not None and file.is_dir():
            raise ConfigError(f"{file}: is a folder; name a file")
        if file is not None and not file.absolute().parent.is_dir():
            raise ConfigError(f"{file}: no directory {file.absolute().parent}; make it first")


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
