"""Packages of a user's own, written into a folder and forgotten after the test."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from raypipe.plugins import loading, packages

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plug-ins.md"
LOSS = '''
from pydantic import Field
from raypipe.losses.base import Loss
from my_package import helpers


class Squared(Loss):
    """Squared error, scaled."""

    scale: float = Field(1.0, gt=0)
    """Multiplies the loss."""

    def per_query(self, scores_QD, targets_QD, mask_QD, known):
        return helpers.squares(self.scale, scores_QD, targets_QD, mask_QD)
'''
HELPERS = """
def squares(scale, scores_QD, targets_QD, mask_QD):
    return scale * ((scores_QD - targets_QD) ** 2 * mask_QD).sum(1)
"""
SQUARED = {
    "my_package/__init__.py": "",
    "my_package/own.py": LOSS,
    "my_package/helpers.py": HELPERS,
    "my_package/unrelated.py": "import my_package.own\n",
}
"""A loss with a helper, and a module that it does not load."""


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write modules by their path below the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def work_in(folder: Path, monkeypatch: pytest.MonkeyPatch, allowed: str = "my_package") -> None:
    """As if a new process had started in the folder, with these packages allowed."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv(packages.ALLOW, allowed)
    forget()


def forget() -> None:
    """Load every package anew that was found in a folder."""
    finders = [f for f in sys.meta_path if isinstance(f, packages.FolderFinder)]
    names = {name for finder in finders for name in finder.folders}
    for module in [m for m in sys.modules if m.partition(".")[0] in names]:
        del sys.modules[module]
    for finder in finders:
        finder.folders.clear()
    loading._loaded.cache_clear()
    packages._checksum.cache_clear()


def examples() -> tuple[dict[str, str], list[str]]:
    """(modules by path, pieces of recipes in YAML) of docs/plug-ins.md."""
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    modules = [text for language, text in blocks if language == "python"]
    files = {text.splitlines()[0].removeprefix("# "): text for text in modules}
    return files, [text for language, text in blocks if language == "yaml"]
