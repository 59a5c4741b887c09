"""Content-addressed artifacts on any pyarrow filesystem: the only interface between steps.

`<storage>/<kind>/<name>-<digest>/manifest.json` stands beside `<attempt>/` directories. A writer
fills its own attempt and writes the manifest last, with one PUT: no manifest, no artifact. Readers
follow the manifest to the winning attempt and read nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from raypipe.progress import shown
from raypipe.storage.artifacts import Artifact, Step, Store

Claim = Callable[[str, Callable[[], bool]], contextlib.AbstractContextManager[Any]]


@dataclass
class Builder:
    """Makes artifacts and what they need, each once; what stands in the store is reused.

    Args:
        context: handed to every `Step.run`.
        announce: called with a line when a step starts.
        claim: held while an artifact is made, so that jobs of one cluster make it once; given the
            step's path and a function that says whether the artifact stands by now.
    """

    store: Store
    context: Any = None
    announce: Callable[[str], None] = lambda line: None
    claim: Claim = lambda path, stands: contextlib.nullcontext()
    made: set[str] = field(default_factory=set)
    _done: dict[str, Artifact] = field(default_factory=dict)

    def find(self, step: Step) -> Artifact | None:
        """The artifact if it stands, without making it."""
        if step.digest not in self._done and (found := self.store.find(step)) is not None:
            self._done[step.digest] = found
        return self._done.get(step.digest)

    def get(self, step: Step) -> Artifact:
        """The artifact of `step`, made now, with what it needs, if it does not stand."""
        if (found := self.find(step)) is not None:
            return found
        inputs = {n: self.get(one) for n, one in {**step.inputs(), **step.needs()}.items()}
        with self.claim(step.path, lambda: self.find(step) is not None):
            if (found := self.find(step)) is not None:  # another job made it while this one waited
                return found
            self.announce(f"{step.kind} {step.name}")
            bars = getattr(self.context, "progress_bars", False)
            with shown(step.name, bars), self.store.attempt(step, inputs) as attempt:
                counts = step.run(attempt, self.context)
                artifact = attempt.commit(counts, getattr(self.context, "facts", dict)())
        self.made.add(step.digest)
        self._done[step.digest] = artifact
        return artifact
