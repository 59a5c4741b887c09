"""An interpreter in which a smaller installation of raypipe is all there is.

Every module is refused whose distributions the smaller installation would not bring: the extras'
requirements of pyproject.toml, and what those require in turn, are read, not a list by hand.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OWN = {"raypipe", "jobs", "tests"}

PROLOGUE = """
import sys
REFUSED = {refused!r}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
assert not REFUSED & set(sys.modules), REFUSED & set(sys.modules)
"""


def plain(name: str) -> str:
    """A distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def brought(extras: tuple[str, ...] = ()) -> set[str]:
    """The distributions of `pip install raypipe[EXTRAS]`, of those that are here."""
    optional: Mapping[str, list[str]] = PROJECT["optional-dependencies"]
    asked = list(PROJECT["dependencies"]) + [r for extra in extras for r in optional[extra]]
    waiting, seen = list(map(Requirement, asked)), set()
    while waiting:
        requirement = waiting.pop()
        name, wanted = plain(requirement.name), tuple(sorted(requirement.extras))
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        if name == "raypipe":
            waiting += [Requirement(r) for extra in wanted for r in optional[extra]]
        else:
            waiting += _required(name, wanted)
    return {name for name, _ in seen}


def _required(name: str, extras: Sequence[str]) -> Iterator[Requirement]:
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # of another platform
        return
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


@cache
def _owners() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def refused(extras: Sequence[str] = (), also: Sequence[str] = ()) -> set[str]:
    """Top-level modules that such an installation does not have.

    Args:
        also: modules that it would have, and that are refused too.
    """
    allowed = {*brought(tuple(extras)), "setuptools", "pip"}
    absent = {m for m, names in _owners().items() if not allowed & set(map(plain, names))}
    return {m for m in absent | set(also) if m not in OWN and not m.startswith("_")}


def run(
    code: str, extras: Sequence[str] = (), also: Sequence[str] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in which the smaller installation is all there is."""
    prologue = PROLOGUE.format(refused=refused(extras, also))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    words = [sys.executable, "-c", prologue + code]
    return subprocess.run(words, capture_output=True, text=True, env=environment)


def program(words: Sequence[object]) -> str:
    """Code that runs the program once."""
    return f"sys.argv = {['raypipe', *map(str, words)]!r}\nimport runpy\n" + (
        "runpy.run_module('raypipe', run_name='__main__')\n"
    )
