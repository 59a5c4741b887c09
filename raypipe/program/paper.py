"""Write what a paper needs of a tracked job: LaTeX table, values, runs, recipe, lock, BibTeX.

raypipe paper JOB --out FOLDER
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raypipe.commands.command_line import check_new_folder, errors
from raypipe.program import OPTIONS
from raypipe.program.options import TrackingOption


def paper(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="a new or empty folder")],
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]",
            help="name of an experiment (its latest job) or run id [default: the latest job]",
            show_default=False,
        ),
    ] = None,
    tracking: TrackingOption = None,
) -> None:
    with errors("paper"):
        from raypipe.commands.paper import write_paper

        check_new_folder(out, f"--out {out}")
        for line in write_paper(job, out, tracking):
            print(line)


def add(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command("paper", help=__doc__, context_settings=OPTIONS)(paper)
