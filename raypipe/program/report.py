"""Report what tracked jobs found: terminal table, Markdown, and one HTML page with plots.

Reads MLflow, so it works for jobs of another day, of another machine, and for those that were
killed, as far as they got. Without a name: the latest job.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raypipe.commands.command_line import errors
from raypipe.program import OPTIONS
from raypipe.program.options import TrackingOption


def report(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[JOB ...]",
            help="names of experiments (their latest job) or run ids; several stand side by side",
            show_default=False,
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="write the page to this file")] = None,
    markdown: Annotated[Path | None, typer.Option(help="write the tables to this file")] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(help="row to test against, instead of the recipe's; once for each row"),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="margin of the equivalence tests, such as 0.02")
    ] = None,
    tracking: TrackingOption = None,
) -> None:
    with errors("report"):
        from raypipe.commands.report import report_of
        from raypipe.config import ConfigError
        from raypipe.evaluation.report.writing import check_files, write

        check_files(html, markdown)
        try:
            write(report_of(jobs or [], tracking, reference or [], margin), html, markdown)
        except ValueError as error:
            raise ConfigError(str(error)) from None


def add(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command("report", help=__doc__, context_settings=OPTIONS)(report)
