"""Mine what a recipe trains on: candidates, negatives, teacher scores, groups; count drops."""

from __future__ import annotations

from typing import Any

import typer

from raypipe.commands.command_line import recipe_command
from raypipe.program import OPTIONS

DEFAULT = "default.yaml"


def work(experiment: Any, dry_run: bool) -> Any:
    """Make the artifacts of every training set of the recipe, or print which there are."""
    from raypipe.commands import mine

    return mine.dry_run(experiment) if dry_run else mine.run(experiment)


def add(app: typer.Typer) -> None:
    """Add the command to a program."""
    text = f"{__doc__}\n\nWithout a recipe: jobs/recipes/{DEFAULT}."
    app.command("mine", help=text, context_settings=OPTIONS)(
        recipe_command("mine", work, DEFAULT, trains=False)
    )
