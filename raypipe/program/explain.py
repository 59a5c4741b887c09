"""Say what a field of a recipe, or a choice such as a loss, means: type, bounds, default, example.

raypipe explain stages.distil.lr
raypipe explain infonce
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raypipe.commands.command_line import RECIPES, errors
from raypipe.program import OPTIONS


def explain(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]", help="a dotted key, or a choice; without one, all keys at the top"
        ),
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(help="write a JSON schema of recipes, for editors, to this file")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="write the reference page, Markdown, to this file")
    ] = None,
) -> None:
    with errors("explain"):
        import json

        from raypipe.commands import explain as work
        from raypipe.recipe.schema import json_schema

        if schema is not None:
            schema.write_text(json.dumps(json_schema(), indent=1) + "\n", "utf-8")
        if reference is not None:
            reference.write_text(work.reference(), "utf-8")
        if key is not None or (schema is None and reference is None):
            print("\n".join(work.explain(key, RECIPES)))


def add(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command("explain", help=__doc__, context_settings=OPTIONS)(explain)
