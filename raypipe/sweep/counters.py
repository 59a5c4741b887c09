"""Every counter of what was mined, drops and repairs among them, down to the last input."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from raypipe.storage.artifacts import Artifact, Step
from raypipe.storage.builder import Builder

_SIZES = {"rows", "tokens", "docs", "postings", "terms", "shards"}
"""Counters that say how large an artifact is; the others say what was chosen, cut or dropped."""
_WORDS = {"docs": "documents", "qrels": "judgements"}
"""Words of counters that people spell out."""


def counts_line(name: str, counts: Mapping[str, Any]) -> str:
    """For people: every counter that is not 0, such as `negatives: 36 groups, 1 text cut`."""
    numbers = {key: n for key, n in counts.items() if isinstance(n, int | float) and n}
    return f"{name}: {', '.join(_counted(key, n) for key, n in numbers.items()) or 'empty'}"


def _counted(key: str, number: float) -> str:
    """A count before what is counted; a value that counts nothing behind its name."""
    words = [_WORDS.get(word, word) for word in key.split("_")]
    plural = next((i for i, word in enumerate(words) if word.endswith("s")), None)
    if plural is None or not isinstance(number, int):
        return f"{' '.join(words)} {number:,}"
    if number == 1:
        words[plural] = re.sub("ies$", "ys", words[plural])[:-1]
    return f"{number:,} {' '.join(words)}"


def behind(steps: Mapping[str, Step], builder: Builder) -> dict[str, Artifact]:
    """The standing artifacts that the steps were made from, without the steps themselves.

    Args:
        steps: by name.

    Returns:
        Each distinct artifact once, by the shortest way to it, such as `member bm25 of candidates
        of distil` or `doc vectors of teacher scores of distil`. Trained stages, whose counts are
        those of training, are left out; what they were made from is not.
    """
    mined = ((way, step) for way, step in steps_behind(steps) if step.kind != "checkpoint")
    found = {way: builder.find(step) for way, step in mined}
    return {way: artifact for way, artifact in found.items() if artifact is not None}


def steps_behind(steps: Mapping[str, Step]) -> Iterator[tuple[str, Step]]:
    """The distinct steps that these read, with the shortest way to each, without these."""
    seen = {step.digest for step in steps.values()}
    queue = deque(steps.items())
    while queue:
        name, step = queue.popleft()
        for key, source in {**step.inputs(), **step.needs()}.items():
            if source.digest in seen:
                continue
            seen.add(source.digest)
            way = f"{key.replace('_', ' ')} of {name}"
            queue.append((way, source))
            yield way, source


def behind_lines(artifacts: Mapping[str, Artifact]) -> list[str]:
    """A line for each artifact that counts more than its own size."""
    lines = (
        counts_line(name, artifact.counts)
        for name, artifact in artifacts.items()
        if not {key for key, number in artifact.counts.items() if number} <= _SIZES
    )
    return [line for line in lines if not line.endswith(": empty")]


def said_once(artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The artifacts, each under all of its names, such as `collection/test, collection`."""
    names: dict[str, list[str]] = {}
    for name, artifact in artifacts.items():
        names.setdefault(artifact.uri, []).append(name)
    by_uri = {artifact.uri: artifact for artifact in artifacts.values()}
    return {", ".join(of): by_uri[uri] for uri, of in names.items()}
