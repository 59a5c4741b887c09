"""Compare losses, backbones and stage orders: mine once, train each distinct stage once, report."""

from __future__ import annotations

from typing import Any

import typer

from raypipe.commands.command_line import recipe_command
from raypipe.program import OPTIONS

DEFAULT = "default.yaml"


def work(experiment: Any, dry_run: bool) -> Any:
    """Run every trial of the recipe's sweep, or print the plan."""
    from raypipe.commands.compare import run_or_plan

    return run_or_plan(experiment, dry_run)


def add(app: typer.Typer) -> None:
    """Add the command to a program."""
    text = f"{__doc__}\n\nWithout a recipe: jobs/recipes/{DEFAULT}."
    app.command("sweep", help=text, context_settings=OPTIONS)(
        recipe_command("sweep", work, DEFAULT)
    )
