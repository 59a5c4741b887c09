"""Building: every step's artifact is found in the store or made, after the artifacts it reads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raypipe.names import printable
from raypipe.progress import shown, watched
from raypipe.storage.artifacts import Artifact, Step, Store
from raypipe.storage.files import KnownFile
from raypipe.storage.outside import check_inputs, check_read, checked
from raypipe.storage.reuse import remarks

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.02, 1.0
Claim = Callable[[str, Callable[[], bool]], contextlib.AbstractContextManager[Any]]
"""Given an artifact's address and a function that says whether the artifact stands by now: a
context to make it in."""


@dataclass
class Builder:
    """Makes artifacts and the artifacts they read, each once; reuses what stands in the store.

    Args:
        context: handed to every `Step.run`.
        announce: called with a line when a step starts; on a terminal the line stands at its foot.
        claim: held while an artifact is made, so that jobs of one cluster make it once.
        made: digests of the steps that this builder ran.
        keys: kept so that the job's other processes can open what has keys in its address.
    """

    store: Store
    context: Any = None
    announce: Callable[[str], None] = lambda line: None
    claim: Claim = lambda path, stands: contextlib.nullcontext()
    made: set[str] = field(default_factory=set)
    keys: Any = None
    alarms: list[str] = field(default_factory=list)
    """What steps say of the counts of their artifacts, each sentence once."""
    planned: int = 0
    """How many steps this builder will have made, as far as `plan` knows."""
    told: set[str] = field(default_factory=set)
    """What was announced of artifacts that stand; nothing of it is announced again."""
    _done: dict[str, Artifact] = field(default_factory=dict)

    def find(self, step: Step) -> Artifact | None:
        """The artifact of `step` if it stands, else None; nothing is made."""
        if step.digest not in self._done and (artifact := self.store.find(step)) is not None:
            for sentence in remarks(step, artifact.manifest):
                self._tell(sentence)
            self._alarm(step, artifact)
            self._done[step.digest] = artifact
        return self._done.get(step.digest)

    def get(self, step: Step) -> Artifact:
        """The artifact of `step`; if it does not stand, it is made, after those it reads."""
        if (standing := self.find(step)) is not None:
            return standing
        read = {**step.inputs(), **step.needs()}
        inputs = {name: self.get(other) for name, other in read.items()}
        with self.claim(self.store.shown_path(step.path), lambda: self.find(step) is not None):
            artifact, made = self._made_once(step, inputs)
        if made:
            self.made.add(step.digest)
        self._alarm(step, artifact)
        self._done[step.digest] = artifact
        return artifact

    def _alarm(self, step: Step, artifact: Artifact) -> None:
        for sentence in step.alarms(artifact.counts):
            line = f"{step.kind} {printable(step.name)}: {sentence}"
            if line not in self.alarms:
                self.alarms.append(line)
                self._tell(line)

    def _tell(self, line: str) -> None:
        if line not in self.told:
            self.told.add(line)
            self.announce(line)

    def _made_once(self, step: Step, inputs: Mapping[str, Artifact]) -> tuple[Artifact, bool]:
        """The artifact, and whether this builder made it: another job may be at work on it."""
        while True:
            if (standing := self._awaited(step)) is not None:
                return standing, False
            outside = _as_planned(step, inputs)
            with self.store.attempt(step, inputs) as attempt:
                attempt.outside = outside
                if attempt.comes_first():
                    line = f"{step.kind} {printable(step.name)}"
                    bars = getattr(self.context, "progress_bars", False)
                    if not (at_foot := bars and watched() and not step.tells):
                        self.announce(line)
                    with shown(printable(step.name), bars, self._nth(line) if at_foot else ""):
                        counts = step.run(attempt, self.context)
                    check_read(outside)
                    artifact = attempt.commit(counts, self._used(step))
                    return artifact, artifact.manifest["attempt"] == attempt.name
                attempt.discard()

    def _awaited(self, step: Step) -> Artifact | None:
        """The artifact, when another job has made it; None when no other job is making it."""
        wait, waiting = _FIRST_WAIT_S, False
        while True:
            writers = self.store.writers(step)  # before `find`: one may commit between the two
            if (standing := self.find(step)) is not None or not writers:
                return standing
            if not waiting:
                who = writers[0].writer or "a job of raypipe 0.1"
                self.announce(
                    f"waiting for {who}, which makes {step.kind} {printable(step.name)} (if no "
                    f"such job runs, remove {writers[0].folder})"
                )
            waiting = True
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)

    def _nth(self, line: str) -> str:
        """The line behind the number of its step, of those that were planned as far as known."""
        number = len(self.made) + 1
        of = f" of {self.planned}" if number <= self.planned else ""
        return f"step {number}{of}: {line}"

    def plan(self, steps: Iterable[Step]) -> None:
        """Count what is to be made for these steps, for people to see how far the work is."""
        missing: set[str] = set()
        waiting = list(steps)
        while waiting:
            step = waiting.pop()
            if step.digest not in missing and self.find(step) is None:
                missing.add(step.digest)
                waiting += {**step.inputs(), **step.needs()}.values()
        self.planned = len(self.made) + len(missing)

    def _used(self, step: Step) -> dict[str, Any]:
        """What the manifest says of the resources, and of a claim that another job took."""
        facts = dict(getattr(self.context, "facts", dict)())
        key = self.store.shown_path(step.path)
        lost = list(getattr(self.claim, "lost", ())).count(key)
        return {**facts, "claims_lost": lost} if lost else facts


def _as_planned(step: Step, inputs: Mapping[str, Artifact]) -> Sequence[KnownFile]:
    """The files from outside that the step will read, as they are now.

    Raises:
        ConfigError: they, or the inputs, are not those that gave the step its digest.
    """
    found = {name: artifact.digest for name, artifact in inputs.items()}
    check_inputs(step.path, step.naming, found)
    files = checked(step.naming.files)
    return () if step.needs() else files  # what a step needs are stored copies of these files
