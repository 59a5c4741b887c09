"""The built-in collection: docstrings of the standard library and of the project's dependencies.

A query is a docstring's first paragraph, its relevant document the qualified name and the rest.
About 22,000 documents; the scan of 160 MB of sources takes some 15 seconds, so it is stored.
BM25 (lucene, k1 1.5, b .75, English stemming, stop words) reaches RR@10 .457 and R@50 .792 on the
test queries.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError, digest, nearest
from raypipe.datasets.dataset import Dataset, file_safe
from raypipe.datasets.docstrings import STDLIB, Entry, modules, scan
from raypipe.extras import remedy
from raypipe.storage.files import file_checksum

PACKAGES = (
    *(STDLIB, "ray", "torch", "transformers", "huggingface_hub", "ir_datasets", "ir_measures"),
    *("mlflow", "pyarrow", "pandas", "numpy", "bm25s", "numba", "pydantic", "yaml", "typer"),
    *("rich", "scipy", "statsmodels", "matplotlib", "sklearn", "sympy", "networkx"),
)
"""The project's dependencies, and four that torch, transformers and mlflow always bring."""

INSTALLED = "installed"

SPLITS = {"train": 0.7, "validation": 0.1, "test": 0.2}
_RULES = 1  # raised when the rules here or in `docstrings` change: stored collections are then old


class PyDoc(Dataset):
    """One split of the docstrings of `packages`; all splits share the documents.

    Args:
        split: train, validation or test, about 70, 10 and 20 % of the queries. The first 200
            normalised characters of the body decide, so near-copies are in one split.
        packages: top-level names, standard library modules included; None is `PACKAGES`, and
            `installed` alone is the standard library and every package of the environment.

    Raises:
        ConfigError: the split is missing or unknown.
    """

    def __init__(self, split: str | None, packages: Sequence[str] | None = None) -> None:
        if split not in SPLITS:
            found = "needs a split" if split is None else f"has no split {split!r}"
            raise ConfigError(f"dataset pydoc {found}{nearest(split or '', SPLITS)}")
        self.split = split
        self.packages = tuple(packages or PACKAGES)
        self.public = packages is None  # others may be the user's own
        if self.packages == (INSTALLED,):
            self.packages = (STDLIB, *installed())
        parts = ["pydoc", *(packages or ())]
        self.docs_name = file_safe("-".join(parts), 48)
        self.name = f"{self.docs_name}-{split}"

    def check(self, queries: bool = True) -> None:
        """Check that every package is installed and has Python sources."""
        for package in self.packages:
            locate(package)
        _ = self._versions

    def docs_identity(self) -> dict[str, Any]:
        """Versions of Python and the packages, in order: the first of equal docstrings stays.

        A package whose sources may change under one version counts with their content.
        """
        return {
            "pydoc": _RULES,
            "python": platform.python_version(),
            "packages": list(self.packages),
            "versions": self._versions,
        }

    def identity(self) -> dict[str, Any]:
        """The split's name beside `docs_identity`."""
        return {**self.docs_identity(), "split": self.split}

    def docs(self) -> Iterator[tuple[str, str]]:
        """Qualified name and the rest of the docstring, in order of package, file and line."""
        for entry in self._scanned[0]:
            yield entry.name, f"{entry.name} {entry.body}"

    def titles(self) -> Iterator[tuple[str, str]]:
        """The qualified names."""
        return ((entry.name, entry.name) for entry in self._scanned[0])

    def queries(self) -> Iterator[tuple[str, str]]:
        """The summaries of this split's docstrings."""
        for entry in self._of_split():
            yield f"q:{entry.name}", entry.summary

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        """One relevant document per query."""
        for entry in self._of_split():
            yield f"q:{entry.name}", entry.name, 1

    def counts(self) -> Mapping[str, int]:
        """The counts of `scan`."""
        return self._scanned[1]

    @property
    def _scanned(self) -> tuple[list[Entry], dict[str, int]]:
        return _scan(self.packages, digest(self._versions))

    @property  # not cached: the sources of an editable install may change in the life of a process
    def _versions(self) -> list[list[str]]:
        return [
            [package, _version(package) or f"content {_content(package)}"]
            for package in self.packages
            if package != STDLIB and package not in sys.stdlib_module_names
        ]

    def _of_split(self) -> Iterator[Entry]:
        return (entry for entry in self._scanned[0] if split_of(entry.body) == self.split)


@functools.lru_cache(maxsize=1)
def _scan(packages: tuple[str, ...], versions: str) -> tuple[list[Entry], dict[str, int]]:
    """The packages' docstrings; splits of one collection share the scan, which takes 15 s.

    Args:
        versions: their digest, by which another content is another scan.
    """
    return scan([(package, root) for package in packages for root in locate(package)])


@functools.cache
def _version(package: str) -> str | None:
    """Names and versions of a package's distributions; None if they do not tell its content.

    They do not where the package is read from a source tree: editable, or only on the path.
    """
    names = sorted(set(_owners().get(package, ())))
    owners = [importlib.metadata.distribution(name) for name in names]
    sites = [Path(str(owner.locate_file(""))) for owner in owners if _is_copied(owner)]
    places = [place.resolve() for place in (Path(sysconfig.get_path("stdlib")), *sites)]
    roots = [root.resolve() for root in locate(package)]
    if len(sites) < len(owners) or not all(any(map(r.is_relative_to, places)) for r in roots):
        return None
    return ",".join(f"{name}=={owner.version}" for name, owner in zip(names, owners, strict=True))


def _is_copied(owner: importlib.metadata.Distribution) -> bool:
    """Whether the distribution's files are copies, which belong to its version."""
    source = json.loads(owner.read_text("direct_url.json") or "{}")
    if source.get("dir_info", {}).get("editable"):
        return False
    site = Path(str(owner.locate_file(""))).name in ("site-packages", "dist-packages")
    return site or owner.read_text("RECORD") is not None  # source trees have metadata without it


def _content(package: str) -> str:
    """Digest of the sources that a scan reads, by their modules' names."""
    sources = [source for root in locate(package) for source in modules(package, root)]
    return digest([[module, file_checksum(path)] for path, module in sources])


@functools.cache
def _owners() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


@functools.cache
def installed() -> tuple[str, ...]:
    """Every top-level package of a distribution that has Python sources here, sorted."""

    def readable(package: str) -> bool:
        try:
            return bool(package.isidentifier() and not package.startswith("_") and locate(package))
        except (ConfigError, ImportError, ValueError):  # find_spec raises for odd modules
            return False

    return tuple(package for package in sorted(_owners()) if readable(package))


def split_of(body: str) -> str:
    """The split of a docstring, from the first 200 characters of its lower-cased body."""
    hashed = hashlib.sha256(body.lower()[:200].encode()).digest()
    share = int.from_bytes(hashed[:8], "big") / 2**64
    for name, fraction in SPLITS.items():
        if share < fraction:
            return name
        share -= fraction
    return name


def _spec(package: str) -> ModuleSpec | None:
    """Where a package is imported from: the path, or a finder that an editable install brings.

    importlib.util.find_spec fails on modules that replace themselves when they are imported.
    """
    finders = [PathFinder, *(f for f in sys.meta_path if "editable" in str(f).lower())]
    return next((spec for f in finders if (spec := f.find_spec(package, None))), None)


def locate(package: str) -> list[Path]:
    """The folders or the file of a top-level package; nothing is imported.

    Raises:
        ConfigError: the package is not installed, or has no Python sources (extension modules).
    """
    stdlib = Path(sysconfig.get_path("stdlib"))
    if package == STDLIB:
        return [stdlib]
    paths = [stdlib / package, stdlib / f"{package}.py"]
    if package not in sys.stdlib_module_names:  # a frozen module of these would name no file
        spec = _spec(package) if package.isidentifier() else None
        if spec is None:
            valid = {*importlib.metadata.packages_distributions(), *sys.stdlib_module_names, STDLIB}
            near = nearest(package, valid)
            near = f"; {remedy('demo')}" if package in PACKAGES else near
            near = "" if near.startswith("; valid") else near
            raise ConfigError(
                f"dataset pydoc: no package {package!r} is installed{near or '; install it'}"
            )
        paths = [Path(p) for p in spec.submodule_search_locations or [spec.origin or ""]]
    sources = [path for path in paths if path.is_dir() or (path.suffix == ".py" and path.is_file())]
    if not sources:
        raise ConfigError(
            f"dataset pydoc: expected Python sources of {package!r}, found none; leave it out"
        )
    return sources
