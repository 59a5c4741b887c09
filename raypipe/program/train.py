"""Train one model through its stages, in order, and evaluate it beside first stage and teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from raypipe.commands.command_line import recipe_command
from raypipe.program import OPTIONS

DEFAULT = "default.yaml"


def work(experiment: Any, dry_run: bool) -> Any:
    """Run the recipe as it stands, without its sweep, or print the plan."""
    from raypipe.commands.compare import run_or_plan

    return run_or_plan(alone(experiment), dry_run)


def alone(experiment: Any) -> Any:
    """The recipe without its sweep; its only trained row is the reference."""
    from raypipe.recipe.space import Sweep

    trained = " -> ".join(experiment.stage_names)
    return experiment.replace(sweep=Sweep(), reference=(trained,))


def export(experiment: Any, form: str) -> Callable[[Path], None]:
    """Refuse a form that the model cannot have; the result writes it to a folder, after work."""
    from raypipe.commands.export import check_form
    from raypipe.commands.export import export as write
    from raypipe.recipe.trials import expand
    from raypipe.storage.builder import Builder

    (trial,) = expand(alone(experiment))
    check_form(trial.experiment, form)

    def to(folder: Path) -> None:
        write(trial, Builder(experiment.store()), folder, form)
        print(f"model and card: {folder}")

    return to


def add(app: typer.Typer) -> None:
    """Add the command to a program."""
    text = f"{__doc__}\n\nWithout a recipe: jobs/recipes/{DEFAULT}."
    app.command("train", help=text, context_settings=OPTIONS)(
        recipe_command("train", work, DEFAULT, export)
    )
