"""The command line that all jobs share: RECIPE [key=value ...] and five options."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from raypipe.interrupts import one_sentence

Export = Callable[[Any, str], Callable[[Path], None]]
RECIPES = Path(__file__).resolve().parents[1] / "recipes"
"""A link to jobs/recipes; the wheel has the files themselves."""


def recipe_command(
    name: str,
    work: Callable[[Any, bool], Any],
    default: str,
    export: Export | None = None,
    *,
    trains: bool = True,
) -> Callable[..., None]:
    """A job's command line: a function for typer.

    Args:
        name: of the command, see `extras.NEEDS`.
        work: called with the Experiment and whether to stop after the plan; returns a result with
            `summary()` and `failed`, or None after a plan.
        default: recipe in jobs/recipes that runs when none is named.
        export: called before work with the Experiment and the form's name; what it returns is
            called after work with a folder, and writes the trained model there.
        trains: whether the work runs models for certain; their libraries are imported beside.
    """

    def command(
        arguments: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="[RECIPE] [key=value ...]",
                help="a YAML recipe, and fields to change, such as stages.distil.lr=2e-5 seed=2",
                show_default=False,
            ),
        ] = None,
        print_config: Annotated[
            bool,
            typer.Option(
                "--print-config", help="print every field and what it means as YAML, then stop"
            ),
        ] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="check everything, print the plan, then stop")
        ] = False,
        summary: Annotated[
            Path | None, typer.Option("--summary", help="write the results as JSON to this file")
        ] = None,
        folder: Annotated[
            Path | None,
            typer.Option(
                "--export",
                metavar="FOLDER",
                help="write the trained model with its card to this folder (jobs/train.py)",
            ),
        ] = None,
        form: Annotated[
            str | None,
            typer.Option(
                "--form",
                metavar="FORM",
                help="of --export: transformers (default), classifier (a similarity head distilled "
                "into a plain classifier), onnx (needs the extra onnx)",
            ),
        ] = None,
    ) -> None:
        with errors(name, ("torch",) if print_config else ()):
            recipe, overrides = recipe_and_overrides(arguments or [], default)
        if folder is not None and export is None:
            raise typer.BadParameter("one model is written by jobs/train.py", param_hint="--export")
        if form is not None and folder is None:
            raise typer.BadParameter("names the form of --export FOLDER", param_hint="--form")
        target = None
        if export is not None and folder is not None:
            target = (partial(export, form=form or "transformers"), folder)
        _run(work, recipe, overrides, print_config, dry_run, summary, target, trains)

    return command


def recipe_and_overrides(words: list[str], default: str) -> tuple[Path, list[str]]:
    """The file of `[RECIPE] [key=value ...]`, and the fields to change.

    Args:
        default: the recipe in jobs/recipes that is meant when none is named.
    """
    named = bool(words) and (Path(words[0]).is_file() or "=" not in words[0])
    return (recipe_path(words[0]) if named else RECIPES / default), words[named:]


def check_new_folder(folder: Path, what: str) -> None:
    """Refuse a folder that holds something.

    Args:
        what: the beginning of the error.

    Raises:
        ConfigError: it does.
    """
    from raypipe.config import ConfigError

    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{what}: the folder is not empty; name a new one")


def recipe_path(word: str) -> Path:
    """The file that is named; `jobs/recipes/X.yaml`, or `X`, is shipped with raypipe."""
    path = Path(word)
    if path.is_file():
        return path
    name = word.removeprefix("jobs/recipes/").removesuffix(".yaml")
    shipped = RECIPES / f"{name}.yaml"
    return shipped if shipped.is_file() else path


@contextlib.contextmanager
def errors(command: str = "", modules: Sequence[str] = ()) -> Iterator[None]:
    """A wrong input, or what is not installed, ends the command with one line and code 2, a disk or
    bucket with code 1, a signal with one line and the code that shells expect.

    Args:
        command: it is refused where it cannot begin, see `extras.check_installed`; so is a missing
            one of the modules.
    """
    with one_sentence():
        from raypipe.config import ConfigError
        from raypipe.extras import check_installed, sentence_on
        from raypipe.storage.faults import of_the_storage

        try:
            check_installed(command, modules)
            yield
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
        except ModuleNotFoundError as error:
            if (sentence := sentence_on(error)) is None:
                raise
            print(f"error: {sentence}", file=sys.stderr)
            raise typer.Exit(2) from None
        except Exception as error:
            if (sentence := of_the_storage(error)) is None:
                raise
            print(f"error: {sentence}", file=sys.stderr)
            raise typer.Exit(1) from None


def _run(
    work: Callable[[Any, bool], Any],
    recipe: Path,
    overrides: list[str],
    print_config: bool,
    dry_run: bool,
    summary: Path | None,
    target: tuple[Callable[[Any], Callable[[Path], None]], Path] | None = None,
    trains: bool = False,
) -> None:
    works = not (print_config or dry_run)
    if works:  # what it needs is imported for seconds, on a busy machine for a minute
        print(f"recipe: {recipe}", flush=True)
    with errors():
        from raypipe.cluster import expect_ray
        from raypipe.config import ConfigError
        from raypipe.recipe.experiment import Experiment
        from raypipe.recipe.reading import load

        if summary is not None and not summary.absolute().parent.is_dir():
            raise ConfigError(
                f"--summary {summary}: no directory {summary.absolute().parent}; make it first"
            )
        if trains and works:
            expect_ray(models=True)
        experiment = load(Experiment, recipe, overrides)
        if print_config:
            from raypipe.recipe.schema import commented_yaml

            print(commented_yaml(experiment), end="")
            return
        write = None
        if target is not None:
            export, folder = target
            check_new_folder(folder, f"--export {folder}")
            write = partial(export(experiment), folder)
        result = work(experiment, dry_run)
        if write is not None and result is not None and not result.failed:
            write()
    if result is None:
        return
    if summary is not None:
        summary.write_text(json.dumps(result.summary(), indent=1) + "\n", "utf-8")
    if result.failed:
        raise typer.Exit(1)
