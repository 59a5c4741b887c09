"""The program `raypipe`: one command per module of this room; scripts in jobs/ run one each.

No module imports more than typer before its command runs, so that `--help` comes at once.
"""

from __future__ import annotations

import importlib

import typer

from raypipe.progress import any_character

OPTIONS = {"help_option_names": ["-h", "--help"]}
COMMANDS = (
    *("synthesize", "mine", "train", "sweep"),
    *("rerank", "retrieve", "evaluate", "report", "paper", "export"),
    *("data", "artifacts", "ui", "explain", "doctor"),
)
"""In the order of --help; each is a module with `add`."""


def app_of(text: str | None, **given: bool) -> typer.Typer:
    """A program, or the part of one, with this help."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        help=text,
        context_settings=OPTIONS,
        **given,
    )


def program() -> None:
    """Run `raypipe COMMAND ...` and exit."""
    any_character()
    app = app_of(
        "From a document collection to trained, evaluated neural rankers, as batch jobs on Ray.",
        no_args_is_help=True,
    )
    for name in COMMANDS:
        importlib.import_module(f"raypipe.program.{name}").add(app)
    app()


def run(name: str) -> None:
    """Run one command alone, as a script of jobs/ does, and exit."""
    any_character()
    module = importlib.import_module(f"raypipe.program.{name}")
    if hasattr(module, "below"):  # a command with commands of its own
        module.below()()
    app = app_of(None)
    module.add(app)
    app()
