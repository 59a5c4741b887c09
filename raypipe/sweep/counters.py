"""Every counter of what was mined, drops and repairs among them, down to the last input."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from raypipe.storage.artifacts import Artifact, Step
from raypipe.storage.builder import Builder


def counts_line(name: str, counts: Mapping[str, Any]) -> str:
    """For people: every counter that is not 0."""
    shown = [
        f"{key.replace('_', ' ')} {value:,}"
        for key, value in counts.items()
        if isinstance(value, int | float) and value
    ]
    return f"{name}: {', '.join(shown) or 'empty'}"


def behind(steps: Mapping[str, Step], builder: Builder) -> dict[str, Artifact]:
    """What the steps were made from and is none of them, each distinct artifact once.

    Args:
        steps: by name.

    Returns:
        Artifacts that stand, by the shortest way to them, such as `member bm25 of candidates of
        distil` or `doc vectors of teacher scores of distil`.
    """
    seen = {step.digest for step in steps.values()}
    found: dict[str, Artifact] = {}
    queue = deque(steps.items())
    while queue:
        name, step = queue.popleft()
        for key, one in {**step.inputs(), **step.needs()}.items():
            if one.digest in seen:
                continue
            seen.add(one.digest)
            inner = f"{key.replace('_', ' ')} of {name}"
            queue.append((inner, one))
            if (artifact := builder.find(one)) is not None:
                found[inner] = artifact
    return found


def behind_lines(found: Mapping[str, Artifact]) -> list[str]:
    """A line for each of them that counts anything."""
    lines = (counts_line(name, artifact.counts) for name, artifact in found.items())
    return [line for line in lines if not line.endswith(": empty")]
