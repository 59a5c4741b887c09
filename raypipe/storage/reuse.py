"""Reuse that is checked, not digested: whether a committed artifact is good enough, and what people
should know when it is used again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, Protocol

Manifest = Mapping[str, Any]


class Reusable(Protocol):
    """What is asked of a step whose artifact stands."""

    @property
    def kind(self) -> str:
        """As of a step; so are the others."""
        ...

    @property
    def libraries(self) -> tuple[str, ...]: ...

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def selective(self) -> bool: ...

    def inputs(self) -> Mapping[str, Any]: ...

    def refuses(self, counts: Mapping[str, Any]) -> str | None: ...

    def remarks(self, facts: Mapping[str, Any]) -> Sequence[str]: ...


def refusal(
    step: Reusable, manifest: Manifest, read: Callable[[Any], Manifest | None]
) -> str | None:
    """Why a committed artifact is made again; None if it may be used.

    The step refuses it, or refuses one that it was made from, or did so before: a manifest says
    which refused ones it `replaces`. What is gone is not asked.

    Args:
        read: gives the manifest of another step's artifact, None if there is none.
    """
    if not step.selective:
        return None
    if (reason := step.refuses(manifest["counts"])) is not None:
        return reason
    for name, below in step.inputs().items():
        standing = read(below) if below.selective else None
        if standing is None:
            continue
        if manifest["inputs"].get(name, {}).get("checksum") in standing.get("replaces", ()):
            return f"it was made from what {below.path} replaces"
        if (reason := refusal(below, standing, read)) is not None:
            return f"it was made from {below.path}: {reason}"
    return None


def remarks(step: Reusable, manifest: Manifest) -> Iterator[str]:
    """Sentences about an artifact that is used again."""
    for sentence in step.remarks(manifest.get("facts", {})):
        yield f"{step.kind} {step.name}: {sentence}"
    made_by, here = [], []
    for library in step.libraries:
        with contextlib.suppress(KeyError, metadata.PackageNotFoundError):
            then, now = manifest["versions"][library], metadata.version(library)
            if _major(then) != _major(now):
                made_by.append(f"{library} {then}")
                here.append(now)
    if made_by:
        yield (
            f"{step.kind} {step.name}: used again, made by {', '.join(made_by)}, here are "
            f"{', '.join(here)}; remove {step.path} from the storage to have it made anew"
        )


def _major(version: str) -> str:
    """The part of a version that stands for its promises: 5 of 5.23.0, 0.22 of 0.22.1."""
    first, *more = version.split(".")
    return f"0.{more[0]}" if first == "0" and more else first
