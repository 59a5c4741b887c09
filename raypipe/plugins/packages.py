"""Which packages a recipe may import, where they are, and the bytes of what a module loads.

Nothing is imported here: modules are found by the import system's rules, and their sources are
read.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError, digest

ALLOW = "RAYPIPE_ALLOW_PLUGINS"
"""Environment variable: the packages that recipes may import, parted by commas."""
_BY_NAME = {"importlib", "pkgutil", "runpy"}
_NOT_BY_NAME = ("importlib.resources", "importlib.metadata", "importlib.abc")
_SUFFIXES = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)


def allowed() -> list[str]:
    """The packages that recipes may import, in the order given."""
    names = (name.strip() for name in os.environ.get(ALLOW, "").split(","))
    return list(dict.fromkeys(filter(None, names)))


def allow(package: str) -> None:
    """Let this process import the package."""
    os.environ[ALLOW] = ",".join(dict.fromkeys([*allowed(), package]))


def check_allowed(package: str) -> None:
    """Refuse a package that nobody allowed, or whose name is taken.

    Raises:
        ConfigError: says what to set, or to rename.
    """
    if package == "raypipe":
        raise ConfigError(
            "expected a package of your own, found raypipe, whose choices have short names: "
            "`raypipe explain` lists them"
        )
    if package in sys.stdlib_module_names:
        raise ConfigError(
            f"expected a package of your own, found {package}, a module of Python itself; give "
            "your package another name"
        )
    if package not in (names := allowed()):
        raise ConfigError(
            f"expected a package that {ALLOW} names, found {package}: to read the recipe would run "
            f"its code; if you trust it, set {ALLOW}={','.join([*names, package])}"
        )


# --- where a package is ---------------------------------------------------------------------------


def find_package(package: str) -> ModuleSpec | None:
    """Where a package is: in the current directory, else where Python looks; None if it is nowhere.

    Raises:
        ConfigError: it is in two places; nobody could say which one is meant.
    """
    importlib.invalidate_caches()
    here, there = PathFinder.find_spec(package, [os.getcwd()]), _installed(package)
    if here is None or there is None or _place(here) == _place(there):
        return here or there
    if here.origin is None:  # a folder without code may have any name
        return there
    if there.origin is not None and _whole(here) != _whole(there):
        raise ConfigError(
            f"{package} is in two places with different content, {_place(here)} and "
            f"{_place(there)}; rename or remove one, or run from another directory"
        )
    return here


def _installed(package: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(package)
    except (ImportError, ValueError):  # a module without a spec, such as __main__
        return None


def _place(spec: ModuleSpec) -> str:
    """The package's folder, or the module's file."""
    locations = spec.submodule_search_locations
    return os.path.realpath(next(iter(locations)) if locations else spec.origin or "")


def parent_folder(spec: ModuleSpec) -> str:
    """The folder that has to be on Python's path for a package to be found."""
    return str(Path(_place(spec)).parent)


def _whole(spec: ModuleSpec) -> str:
    files = {name: _checksum(path) for name, path in _all_modules(spec.name, spec).items()}
    return digest(files, 32)


# --- what a module loads --------------------------------------------------------------------------


def code_of(module: str, package: ModuleSpec) -> str:
    """A digest of the bytes of every module of the package that importing this one may load.

    Imports are followed as they stand in the sources, those within functions too. A module that
    imports by computed names (`importlib`, `__import__`, `exec`) loads the whole package. Neither
    what was imported before nor where the package is has an influence.
    """
    return digest({name: _checksum(path) for name, path in modules_of(module, package).items()}, 32)


def modules_of(module: str, package: ModuleSpec) -> dict[str, Path]:
    """The files behind `code_of`, by dotted name."""
    find = _Finder(package)
    found: dict[str, Path] = {}
    waiting = [module]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if (parent := name.rpartition(".")[0]).startswith(package.name):
            waiting.append(parent)  # its __init__ runs first
        spec = find(name)
        if spec is None:
            continue
        if spec.origin is not None and spec.has_location:
            found[name] = Path(spec.origin)
        for imported in _imports(name, spec):
            if imported == "*":
                found |= _all_modules(package.name, package)
            elif imported.endswith(".*"):  # `from package import *` may load what __all__ names
                waiting += find.children(imported.removesuffix(".*"))
            elif imported == package.name or imported.startswith(f"{package.name}."):
                waiting.append(imported)
    return dict(sorted(found.items()))


class _Finder:
    """Specs of a package's modules by dotted name."""

    def __init__(self, package: ModuleSpec) -> None:
        self._specs: dict[str, ModuleSpec | None] = {package.name: package}

    def __call__(self, name: str) -> ModuleSpec | None:
        if name not in self._specs:
            parent = self(name.rpartition(".")[0]) if "." in name else None
            locations = None if parent is None else parent.submodule_search_locations
            self._specs[name] = PathFinder.find_spec(name, list(locations)) if locations else None
        return self._specs[name]

    def children(self, name: str) -> list[str]:
        """The modules directly below a package, and the package."""
        spec = self(name)
        if spec is None:
            return []
        below = _all_modules(name, spec)
        return [name, *(child for child in below if child.count(".") == name.count(".") + 1)]


def _imports(name: str, spec: ModuleSpec) -> Iterator[str]:
    """Dotted names that a module imports: `a.b` and `a.b.c` for `from a.b import c`, `a.b.*` for
    all of `a.b`, and `*` where names are computed."""
    if not (spec.origin or "").endswith(tuple(SOURCE_SUFFIXES)):
        return
    try:
        tree = ast.parse(Path(spec.origin or "").read_bytes())
    except (SyntaxError, ValueError):  # the import will say so
        return
    parts = name.split(".")
    inside = parts if spec.submodule_search_locations is not None else parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _computed(alias.name)
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            above = inside[: len(inside) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                yield from _computed(f"{base}.{alias.name}")
                yield f"{base}.{alias.name}"
            yield base
        elif isinstance(node, ast.Name) and node.id in ("__import__", "exec"):
            yield "*"


def _computed(name: str) -> Iterator[str]:
    if name.partition(".")[0] in _BY_NAME and not name.startswith(_NOT_BY_NAME):
        yield "*"


def _all_modules(name: str, spec: ModuleSpec) -> dict[str, Path]:
    """The files of all modules of a package by dotted name."""
    found: dict[str, Path] = {}
    for location in spec.submodule_search_locations or ():
        for path in sorted(Path(location).rglob("*")):
            if path.name.endswith(_SUFFIXES) and path.is_file():
                parts = path.relative_to(location).parts
                stem = parts[-1].partition(".")[0]
                below = [*parts[:-1], *([] if stem == "__init__" else [stem])]
                found[".".join([name, *below])] = path
    if spec.submodule_search_locations is None and spec.origin is not None:
        found[name] = Path(spec.origin)
    return found


@functools.cache
def _checksum(path: Path) -> str:
    """Of a file as it was when this process first asked, which is when it is imported."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- imports of one package from a folder ---------------------------------------------------------


class FolderFinder:
    """Finds some packages in some folders, and nothing else there: a folder on `sys.path` could
    hide installed libraries behind files that happen to have their names."""

    def __init__(self) -> None:
        self.folders: dict[str, str] = {}
        """By package."""

    def find_spec(
        self, name: str, path: Iterable[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        """As the import system asks: only for packages at the top."""
        folder = self.folders.get(name) if path is None else None
        return None if folder is None else PathFinder.find_spec(name, [folder])


def import_from(package: str, folder: str) -> None:
    """From now on this process imports the package from the folder, if it is there."""
    finder = next((f for f in sys.meta_path if isinstance(f, FolderFinder)), None)
    if finder is None:
        finder = FolderFinder()
        sys.meta_path.insert(0, finder)
    finder.folders[package] = folder
