"""Docstrings of Python sources, read with `ast`, cut in two; nothing is imported."""

from __future__ import annotations

import ast
import gc
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STDLIB = "stdlib"
"""The package name of the whole standard library; its modules' names get no prefix."""

MIN_SUMMARY_CHARS, MIN_SUMMARY_WORDS, MAX_SUMMARY_CHARS = 20, 4, 400
MIN_BODY_CHARS = 100
_TESTS = frozenset({"test", "tests", "testing", "idle_test", "conftest", "lib2to3"})
_VENDORED = frozenset({"vendor", "vendored", "third_party", "thirdparty", "thirdparty_files"})


@dataclass(frozen=True)
class Entry:
    """One docstring, cut in two; white space is single spaces."""

    name: str
    summary: str
    body: str


def scan(roots: Iterable[tuple[str, Path]]) -> tuple[list[Entry], dict[str, int]]:
    """Read every usable public docstring.

    Args:
        roots: pairs of package name and folder or file.

    Returns:
        Entries with distinct names, summaries and bodies (case ignored, the first of each stays),
        and the counts `docstrings` seen, `unreadable_files`, `unsuitable` (outside this module's
        bounds), `duplicate_names`, `duplicate_summaries`, `duplicate_bodies`.
    """
    seen: dict[str, set[str]] = {"names": set(), "summaries": set(), "bodies": set()}
    keys = ["docstrings", "unreadable_files", "unsuitable", *(f"duplicate_{key}" for key in seen)]
    counts = Counter(dict.fromkeys(keys, 0))
    entries: list[Entry] = []
    with _fast_parsing():
        for entry in _entries(roots, counts):
            values = (entry.name, entry.summary.lower(), entry.body.lower())
            known = [k for k, value in zip(seen, values, strict=True) if value in seen[k]]
            if known:
                counts[f"duplicate_{known[0]}"] += 1
                continue
            for key, value in zip(seen, values, strict=True):
                seen[key].add(value)
            entries.append(entry)
    return entries, dict(counts)


@contextmanager
def _fast_parsing() -> Iterator[None]:
    """Turn off the garbage collector (syntax trees have no cycles) and warnings of old sources."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if enabled:
            gc.enable()


def _entries(roots: Iterable[tuple[str, Path]], counts: Counter[str]) -> Iterator[Entry]:
    for package, root in roots:
        for path, module in modules(package, root):
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError, RecursionError, OSError):
                counts["unreadable_files"] += 1
                continue
            for name, text in _docstrings(tree, module):
                counts["docstrings"] += 1
                entry = cut(name, text)
                if entry is None:
                    counts["unsuitable"] += 1
                else:
                    yield entry


def modules(package: str, root: Path) -> Iterator[tuple[Path, str]]:
    """Source files and their modules' names, sorted; no tests, no vendored or private modules."""
    prefix = [] if package == STDLIB else [package]
    if root.is_file():
        yield root, package
        return
    for folder, names, files in os.walk(root):
        names[:] = sorted(n for n in names if n.isidentifier() and _kept(n))  # not site-packages
        inner = [*prefix, *Path(folder).relative_to(root).parts]
        for file in sorted(files):
            stem, suffix = os.path.splitext(file)
            if suffix == ".py" and stem.isidentifier() and _kept(stem):
                yield Path(folder, file), ".".join(inner if stem == "__init__" else [*inner, stem])


def _kept(name: str) -> bool:
    is_test = name.startswith("test_") or name.endswith("_test") or name in _TESTS
    return _public(name) and not is_test and name not in _VENDORED


def _public(name: str) -> bool:
    return not name.startswith("_") or name == "__init__"


_NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (ast.If, ast.Try, ast.ExceptHandler, ast.With)


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) in source order, without definitions inside functions."""
    if not isinstance(node, _BLOCKS):
        text = ast.get_docstring(node)  # type: ignore[arg-type]
        if text:
            yield name, text
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _NAMED):
            if _public(child.name):
                yield from _docstrings(child, f"{name}.{child.name}" if name else child.name)
        elif isinstance(child, _BLOCKS):
            yield from _docstrings(child, name)


def cut(name: str, docstring: str) -> Entry | None:
    """Summary and body of a docstring; None if summary or body is outside this module's bounds.

    The summary is the whole first paragraph: many docstrings wrap their first sentence.
    """
    summary, _, body = docstring.strip().partition("\n\n")
    summary, body = _normal(summary), _normal(body)
    if not MIN_SUMMARY_CHARS <= len(summary) <= MAX_SUMMARY_CHARS:
        return None
    if len(summary.split()) < MIN_SUMMARY_WORDS or len(body) < MIN_BODY_CHARS:
        return None
    return Entry(name, summary, body)


def _normal(text: str) -> str:
    """The text with single spaces; half surrogate pairs, which UTF-8 lacks, become `?`."""
    return " ".join(text.split()).encode("utf-8", "replace").decode()
