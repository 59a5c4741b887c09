"""Write a trained model with its card to a folder: transformers, a plain classifier, or ONNX; or
the groups that it trains on, as FlagEmbedding, Tevatron or sentence-transformers read them.

raypipe export FOLDER RECIPE [key=value ...]
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raypipe.commands.command_line import check_new_folder, errors, recipe_and_overrides
from raypipe.program import OPTIONS
from raypipe.program.train import DEFAULT, alone
from raypipe.program.train import export as writer_of


def export(
    folder: Annotated[Path, typer.Argument(help="a new or empty folder")],
    recipe: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [key=value ...]", help="as it was trained", show_default=False
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            help="transformers, classifier (distilled from a similarity head) or onnx; groups as "
            "flagembedding, tevatron or sentence-transformers"
        ),
    ] = "transformers",
    hub: Annotated[
        str | None,
        typer.Option(
            "--push-to-hub",
            metavar="USER/NAME",
            help="upload the folder, too, to a repository of models or data sets, private if new",
        ),
    ] = None,
) -> None:
    with errors("export"):
        from raypipe.commands.group_forms import GROUP_FORMS, export_groups
        from raypipe.commands.hub import check_push, push
        from raypipe.config import ConfigError
        from raypipe.recipe.experiment import Experiment
        from raypipe.recipe.reading import load
        from raypipe.storage.builder import Builder

        path, overrides = recipe_and_overrides(recipe or [], DEFAULT)
        experiment = load(Experiment, path, overrides)
        check_new_folder(folder, str(folder))
        if hub is not None:
            check_push(hub)
        if form in GROUP_FORMS:
            export_groups(alone(experiment), folder, form)
            if hub is not None:
                push(folder, hub, "dataset")
            return
        write = writer_of(experiment, form)
        last = alone(experiment).trained()
        if Builder(experiment.store()).find(last) is None:
            raise ConfigError(
                f"{last.name} of {path} is not in {experiment.store().shown_path('')} yet; train "
                "it first: raypipe train, with the same words"
            )
        write(folder)
        if hub is not None:
            push(folder, hub, "model")


def add(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command("export", help=__doc__, context_settings=OPTIONS)(export)
