"""What stands in a storage, where it comes from, and whether it is whole; see prune for removal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from raypipe.names import counted
from raypipe.progress import Say
from raypipe.storage.artifacts import Artifact, Store
from raypipe.storage.files import home
from raypipe.storage.inventory import (
    Inventory,
    Place,
    damaged_files,
    inventory,
    size_text,
)

_ROWS = ("docs", "groups", "queries", "rows")
"""Counts that say how many rows an artifact has, the plainest first."""


def store_of(storage: str | None) -> Store:
    """The storage of an address; None is the one that jobs write to by default."""
    return Store(storage or str(home() / "storage"))


# --- list -----------------------------------------------------------------------------------------


def list_lines(store: Store) -> Iterator[str]:
    """Every artifact with its size, rows and time, sums by kind, and what else lies there.

    Raises:
        ConfigError: the storage cannot be read.
    """
    contents = inventory(store)
    cells = [("kind", "artifact", "size", "rows", "written")]
    paths = [*contents.artifacts, *contents.unreadable]
    cells += [_cells(path, contents.places[path]) for path in paths]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for kind, name, size, rows, written in cells:
        left = f"{kind:<{widths[0]}}  {name:<{widths[1]}}"
        yield f"{left}  {size:>{widths[2]}}  {rows:>{widths[3]}}  {written}"
    yield ""
    yield from _sums(contents)


def _cells(path: str, place: Place) -> tuple[str, str, str, str, str]:
    kind, _, name = path.partition("/")
    if place.artifact is None:
        return kind, name, "?", "", "unreadable manifest"
    counts = place.artifact.counts
    rows = next((f"{counts[key]:,}" for key in _ROWS if isinstance(counts.get(key), int)), "")
    return kind, name, size_text(place.size), rows, place.artifact.manifest["written"]


def _sums(contents: Inventory) -> Iterator[str]:
    sizes: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for path in contents.artifacts:
        kind = path.partition("/")[0]
        sizes[kind] += contents.places[path].size
        numbers[kind] += 1
    for kind, size in sizes.most_common():
        yield f"{kind}: {numbers[kind]}, {size_text(size)}"
    total, shown = size_text(sizes.total()), contents.store.shown
    yield f"total: {counted(numbers.total(), 'artifact')}, {total} in {shown}"
    folders = [folder for place in contents.places.values() for folder in place.unnamed.values()]
    tune = list(contents.tune.values())
    for what, others in (("attempt", folders), ("folder of Ray Tune", tune)):
        if others:
            size = size_text(sum(folder.size for folder in others))
            yield f"beside them: {counted(len(others), what)}, {size}; see prune"
    if contents.unreadable:
        yield f"{counted(len(contents.unreadable), 'manifest')} cannot be read; see verify"


# --- show -----------------------------------------------------------------------------------------


def show_lines(store: Store, named: str) -> Iterator[str]:
    """Where an artifact comes from: what decided it, its counts, and all it was made from.

    Args:
        named: its path, address, name with digest, or the first digits of the digest.

    Raises:
        ConfigError: no such artifact, or the storage cannot be read.
    """
    contents = inventory(store)
    place = contents.named(named)
    if place.artifact is None:
        yield place.path
        yield f"  {_why_none(place)}"
        return
    manifest = place.artifact.manifest
    yield f"{place.artifact.uri}"
    yield f"  made by {manifest.get('step', '?')}, {_made(place.artifact)}"
    yield f"  {counted(len(place.artifact.files), 'file')}, {size_text(place.size)}"
    for title in ("spec", "counts", "facts", "used", "versions"):
        if fields := manifest.get(title):
            yield f"  {title}:"
            text = yaml.safe_dump(_shortened(fields), sort_keys=False, allow_unicode=True)
            yield from (f"    {line}" for line in text.splitlines())
    yield "  made from:" if manifest["inputs"] else "  made from no artifact"
    yield from _tree(contents, manifest["inputs"], "    ", set())


def _why_none(place: Place) -> str:
    if place.problem:
        return f"its manifest cannot be read: {place.problem}"
    size = size_text(sum(folder.size for folder in place.attempts.values()))
    return f"not finished: {counted(len(place.attempts), 'attempt')}, {size}"


def _made(artifact: Artifact) -> str:
    manifest = artifact.manifest
    took = f"in {manifest['seconds']:,} s " if "seconds" in manifest else ""
    return f"{took}on {manifest.get('machine', '?')}, written {manifest['written']}"


def _shortened(value: Any, most: int = 20) -> Any:
    """The value with long lists cut: a recipe may name a thousand files."""
    if isinstance(value, Mapping):
        return {key: _shortened(inner) for key, inner in value.items()}
    if isinstance(value, list):
        more = [f"... and {len(value) - most} more"] if len(value) > most else []
        return [_shortened(inner) for inner in value[:most]] + more
    return value


def _tree(
    contents: Inventory, inputs: Mapping[str, Mapping[str, str]], indent: str, shown: set[str]
) -> Iterator[str]:
    """The inputs of a manifest, and below each its own; those of one artifact are shown once."""
    for name, entry in inputs.items():
        path = entry["path"]
        place = contents.places.get(path)
        artifact = place.artifact if place is not None else None
        if artifact is None:
            yield f"{indent}{name}: {path}  (not there any more)"
        elif path in shown:
            yield f"{indent}{name}: {path}  (see above)"
        else:
            shown.add(path)
            again = "" if artifact.checksum == entry.get("checksum") else "; made again since"
            yield f"{indent}{name}: {path}  ({_made(artifact)}{again})"
            yield from _tree(contents, artifact.manifest["inputs"], f"{indent}  ", shown)


# --- verify ---------------------------------------------------------------------------------------


def verify(store: Store, named: Sequence[str], say: Say) -> bool:
    """Read every file of these artifacts, or of all; say which are not what was committed.

    Returns:
        Whether all are whole.

    Raises:
        ConfigError: no such artifact, or the storage cannot be read.
    """
    contents = inventory(store)
    whole: list[Place] = []
    damaged: list[str] = []
    for place in [contents.named(name) for name in named] or contents.places.values():
        problems = list(_problems(place, of_all=not named))
        for problem in problems:
            say(f"damaged: {place.path}: {problem}")
        if problems:
            damaged.append(f"{store.shown.rstrip('/')}/{place.path}")
        elif place.artifact is not None:
            whole.append(place)
    files = sum(len(place.artifact.files) for place in whole if place.artifact is not None)
    say(
        f"{counted(len(whole), 'artifact')} whole, {counted(files, 'file')}, "
        f"{size_text(sum(place.size for place in whole))}; {len(damaged)} damaged"
    )
    if damaged:
        say(
            "remedy: remove the folder of each, then run the recipe again that needs it, which "
            f"makes it anew: {', '.join(damaged)}"
        )
    return not damaged


def _problems(place: Place, *, of_all: bool) -> Iterator[str]:
    """What is wrong with an artifact.

    Args:
        of_all: unfinished artifacts are not damaged, unless they were asked for.
    """
    if place.problem:
        yield f"its manifest cannot be read: {place.problem}"
    elif place.artifact is not None:
        yield from damaged_files(place.artifact)
    elif not of_all:
        yield _why_none(place)
