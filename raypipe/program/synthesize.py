"""Write a recipe's synthetic queries: passages are drawn, queries written, cleaned and filtered."""

from __future__ import annotations

from typing import Any

import typer

from raypipe.commands.command_line import recipe_command
from raypipe.program import OPTIONS

DEFAULT = "zero-label-small.yaml"


def work(experiment: Any, dry_run: bool) -> Any:
    """Make the synthetic sets of the recipe, or print which there are."""
    from raypipe.commands import synthesize

    return synthesize.dry_run(experiment) if dry_run else synthesize.run(experiment)


def add(app: typer.Typer) -> None:
    """Add the command to a program."""
    text = f"{__doc__}\n\nWithout a recipe: jobs/recipes/{DEFAULT}."
    app.command("synthesize", help=text, context_settings=OPTIONS)(
        recipe_command("synthesize", work, DEFAULT, trains=False)
    )
