"""Which stages a sweep needs, each once, and which trial may start when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune.search import Searcher

from raypipe.groups.training_set import TrainingData
from raypipe.recipe.trials import Trial
from raypipe.stages.stage import Stage
from raypipe.storage.artifacts import Step


@dataclass(frozen=True)
class Plan:
    """The stages behind the trials; trials with a common beginning share it."""

    trials: Sequence[Trial]
    chains: Sequence[Sequence[Stage]]
    """Per trial, its stages in order."""

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Plan:
        return cls(trials, [trial.experiment.trained().chain() for trial in trials])

    @property
    def stages(self) -> dict[str, Stage]:
        """Distinct stages by digest, in order of first use."""
        return {stage.digest: stage for chain in self.chains for stage in chain}

    def shared(self) -> list[Step]:
        """What all trials read and none should make: collections, lists, groups, tokens."""
        found: dict[str, Step] = {}
        for stage in self.stages.values():
            for step in stage.inputs().values():
                if not isinstance(step, Stage):
                    found.setdefault(step.digest, step)
        return list(found.values())

    def summary(self, standing: Callable[[Step], bool]) -> list[str]:
        """Lines for people: how many stages, how many are already there."""
        stages, asked = self.stages, sum(len(chain) for chain in self.chains)
        there = sum(standing(stage) for stage in stages.values())
        lines = [
            f"{_count(len(self.trials), 'trial')}, {_count(len(stages), 'distinct stage')} instead "
            f"of {asked} ({there} already trained)"
        ]
        for trial, chain in zip(self.trials, self.chains, strict=True):
            marks = " -> ".join(
                f"{stage.stage_name}{' (there)' if standing(stage) else ''}" for stage in chain
            )
            lines.append(f"  {trial.name}: {marks}")
        return lines


def training_sets(trials: Sequence[Trial]) -> dict[str, TrainingData]:
    """The distinct training sets of all trials, named by the stages that use them.

    Where trials differ in what a stage trains on, the name of the set's first trial stands behind.
    """
    users: dict[str, dict[str, str]] = {}
    sets: dict[str, TrainingData] = {}
    for trial in trials:
        for stages, data in trial.experiment.training_sets().items():
            digest = data.groups().digest
            sets.setdefault(digest, data)
            for stage in stages.split(", "):
                users.setdefault(digest, {}).setdefault(stage, trial.name)
    named: dict[str, TrainingData] = {}
    for digest, stages in users.items():
        name = ", ".join(stages)
        unique = name if name not in named else f"{name} ({next(iter(stages.values()))})"
        named[unique] = sets[digest]
    return named


@dataclass
class Readiness:
    """Decides which waiting trial may start: one whose missing stages nobody else is training.

    A stage is trained by the first trial that needs it; the others wait, without resources, until
    it is committed, or until its trainer failed.
    """

    chains: Sequence[Sequence[Stage]]
    """Per trial, its stages in order; may grow."""
    standing: Callable[[Step], bool]
    waiting: list[int]
    """Positions of trials, in order of preference."""
    _owner: dict[str, int] = field(default_factory=dict)

    def next(self) -> int | None:
        """A trial that can start now, which then owns its missing stages; None if all must wait."""
        for position in self.waiting:
            missing = [s.digest for s in self.chains[position] if not self.standing(s)]
            if not any(digest in self._owner for digest in missing):
                self.waiting.remove(position)
                self._owner |= dict.fromkeys(missing, position)
                return position
        return None

    def finished(self, position: int) -> None:
        """The trial ended, well or not: stages it did not commit are free again."""
        self._owner = {d: p for d, p in self._owner.items() if p != position}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


class PlannedSearch(Searcher):
    """Suggests a trial as soon as nobody else is training what it needs.

    A trial that must wait is not suggested, so it holds neither a slot nor a CPU.
    """

    def __init__(self, readiness: Readiness) -> None:
        super().__init__()
        self._readiness = readiness
        self.asked: dict[str, int] = {}
        """Tune's id of a trial to its position in the plan."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The position of the next trial, None to ask again later."""
        if not self._readiness.waiting:
            return Searcher.FINISHED
        position = self._readiness.next()
        if position is None:
            return None
        self.asked[trial_id] = position
        return {"trial": position}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Free what the trial did not commit."""
        self._readiness.finished(self.asked[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: what was reached stands in the artifact store."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """There is no metric to optimise."""
        return True
