"""Look at what a job will find here: versions, processor, GPU, disk, ports, storage, tracking."""

from __future__ import annotations

import typer

from raypipe.commands.command_line import errors
from raypipe.program import OPTIONS
from raypipe.program.options import StorageOption, TrackingOption


def doctor(
    storage: StorageOption = None,
    tracking: TrackingOption = None,
) -> None:
    with errors():
        from raypipe.commands.doctor import findings
        from raypipe.names import printable

        wrong = 0
        for found in findings(storage, tracking):
            wrong += found.mark == "wrong"
            print(f"{found.mark:5}  {found.what:21}  {printable(found.text)}", flush=True)
        if wrong:
            print(f"{wrong} of these keep a job from running")
            raise typer.Exit(1)


def add(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command("doctor", help=__doc__, context_settings=OPTIONS)(doctor)
