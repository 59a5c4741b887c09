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
    """The standing artifacts that the steps were made from, without the steps themselves.

    Args:
        steps: by name.

    Returns:
        Each distinct artifact once, by the shortest way to it, such as `member bm25 of candidates
        of distil` or `doc vectors of teacher scores of distil`.
    """
    seen = {step.digest for step in steps.values()}
    artifacts: dict[str, Artifact] = {}
    queue = deque(steps.items())
    while queue:
        name, step = queue.popleft()
        for key, source in {**step.inputs(), **step.needs()}.items():
            if source.digest in seen:
                continue
            seen.add(source.digest)
            way = f"{key.replace('_', ' ')} of {name}"
            queue.append((way, source))
            if (artifact := builder.find(source)) is not None:
                artifacts[way] = artifact
    return artifacts


def behind_lines(artifacts: Mapping[str, Artifact]) -> list[str]:
    """A line for each artifact that counts anything."""
    lines = (counts_line(name, artifact.counts) for name, artifact in artifacts.items())
    return [line for line in lines if not line.endswith(": empty")]
