"""Open the MLflow UI on the store that jobs write to; with --send, send records left behind."""

from __future__ import annotations

import typer

from raypipe.program import OPTIONS


def ui(context: typer.Context) -> None:
    from raypipe.tracking.__main__ import main

    raise typer.Exit(main(context.args))


def add(app: typer.Typer) -> None:
    """Add the command to a program; its options are those of `mlflow ui`."""
    settings = {**OPTIONS, "allow_extra_args": True, "ignore_unknown_options": True}
    app.command("ui", help=__doc__, context_settings=settings)(ui)
