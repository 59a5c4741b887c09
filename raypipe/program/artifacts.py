"""See what stands in a storage, where it comes from, whether it is whole; remove what is left over.

raypipe artifacts list
raypipe artifacts prune --keep jobs/recipes/pydoc.yaml
"""

from __future__ import annotations

from typing import Annotated

import typer

from raypipe.commands.command_line import errors
from raypipe.program import OPTIONS, app_of
from raypipe.program.options import StorageOption, TrackingOption

ARTIFACT = "its path, name-digest, address, or the first digits of its digest"


def _print(line: str) -> None:
    """Print the line; the names of folders in a storage may be anybody's."""
    from raypipe.names import printable

    print(printable(line))


def list_(storage: StorageOption = None) -> None:
    """Kind, name, size, rows and time of every artifact, with sums."""
    from raypipe.commands.artifacts import list_lines, store_of

    with errors():
        for line in list_lines(store_of(storage)):
            _print(line)


def show(
    artifact: Annotated[str, typer.Argument(help=ARTIFACT)], storage: StorageOption = None
) -> None:
    """What decided an artifact, its counts, versions and machine, and all that it was made from."""
    from raypipe.commands.artifacts import show_lines, store_of

    with errors():
        for line in show_lines(store_of(storage), artifact):
            _print(line)


def verify(
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARTIFACT ...]", help=f"{ARTIFACT}; without any: all"),
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Read every file and compare size and sha256; exit 1 if something is damaged."""
    from raypipe.commands.artifacts import store_of
    from raypipe.commands.artifacts import verify as verified

    with errors():
        if not verified(store_of(storage), artifacts or [], _print):
            raise typer.Exit(1)


def prune(
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE ...]", help="further recipes to keep, behind --keep"),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RECIPE",
            help="a YAML recipe, or a tracked job (experiment or run id), whose artifacts stay; "
            "all that no kept one needs go. Without --keep all artifacts stay",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="remove; without it: only show")] = False,
    storage: StorageOption = None,
    tracking: TrackingOption = None,
) -> None:
    """Show, and with --yes remove, what nobody needs any more.

    These are attempts that nobody writes and no manifest names, Ray Tune's folders of jobs that
    ended, copies in this machine's $RAYPIPE_HOME/cache above RAYPIPE_CACHE_GB, and, with --keep,
    artifacts that no kept recipe needs. A running job's recipe belongs among the kept ones.
    """
    from raypipe.commands.artifacts import store_of
    from raypipe.commands.prune import run

    if more and not keep:
        raise typer.BadParameter("name recipes to keep behind --keep", param_hint="RECIPE")
    with errors():
        if not run(store_of(storage), [*(keep or []), *(more or [])], tracking, yes, _print):
            raise typer.Exit(1)


def add(app: typer.Typer) -> None:
    """Add the commands to a program, below one name."""
    app.add_typer(below(), name="artifacts")


def below() -> typer.Typer:
    """The four commands as a program of their own."""
    own = app_of(__doc__, no_args_is_help=True)
    for name, command in (("list", list_), ("show", show), ("verify", verify), ("prune", prune)):
        own.command(name, context_settings=OPTIONS)(command)
    return own
