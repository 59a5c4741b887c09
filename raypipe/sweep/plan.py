"""Which stages the trials of a sweep need, each once, and which trial may start when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from raypipe.evaluation.results import MAIN
from raypipe.groups.training_set import TrainingData
from raypipe.names import counted
from raypipe.recipe.experiment import Role
from raypipe.recipe.trials import Trial
from raypipe.runs.metrics import Metrics
from raypipe.stages.stage import Stage
from raypipe.storage.artifacts import Step


@dataclass(frozen=True)
class Plan:
    """Trials and the stages behind each; trials with a common beginning share its stages.

    A trial's stages are built once, here: to build them reads the recipe, and to name them digests
    every step below.
    """

    trials: Sequence[Trial]
    _chains: Mapping[str, Sequence[Stage]]
    """Trial name to its stages in order."""

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Plan:
        """The plan of trials with different names."""
        chains = {trial.name: trial.experiment.trained().chain() for trial in trials}
        assert len(chains) == len(trials), "expand refuses trials of one name"
        return cls(trials, chains)

    @classmethod
    def joined(cls, plans: Iterable[Plan]) -> Plan:
        """The trials of all plans, in order, with the stages that the plans know."""
        plans = list(plans)
        chains = {name: chain for plan in plans for name, chain in plan._chains.items()}
        return cls([trial for plan in plans for trial in plan.trials], chains)

    def only(self, trials: Sequence[Trial]) -> Plan:
        """The plan of some of these trials."""
        return Plan(trials, {trial.name: self.chain(trial) for trial in trials})

    def without(self, names: Iterable[str]) -> Plan:
        """The plan of the trials with other names, such as those that did not fail."""
        left_out = set(names)
        return self.only([trial for trial in self.trials if trial.name not in left_out])

    def chain(self, trial: Trial) -> Sequence[Stage]:
        """The trial's stages in order."""
        return self._chains[trial.name]

    @property
    def chains(self) -> list[Sequence[Stage]]:
        """Per trial, its stages in order."""
        return [self.chain(trial) for trial in self.trials]

    def last(self, trial: Trial) -> Stage:
        """The stage whose checkpoint is the trial's model."""
        return self.chain(trial)[-1]

    def metrics(self, trial: Trial, role: Role = MAIN) -> Metrics:
        """The step that measures the trial's model on a test set."""
        experiment = trial.experiment
        return experiment.metrics(experiment.run_of(self.last(trial), role), role)

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """Distinct stages by digest, in order of first use."""
        return {stage.digest: stage for chain in self.chains for stage in chain}

    def shared(self) -> list[Step]:
        """What all trials read and none should make: collections, lists, groups, tokens."""
        inputs: dict[str, Step] = {}
        for stage in self.stages.values():
            for step in stage.inputs().values():
                if not isinstance(step, Stage):
                    inputs.setdefault(step.digest, step)
        return list(inputs.values())

    def summary(self, standing: Callable[[Step], bool]) -> list[str]:
        """Lines for people: how many stages, and which of them are already trained."""
        uses = sum(len(chain) for chain in self.chains)
        trained = sum(standing(stage) for stage in self.stages.values())
        shared = f" instead of {uses}" if uses > len(self.stages) else ""
        there = f" ({trained} already trained)" if trained else ""
        stages = counted(len(self.stages), "distinct stage")
        lines = [f"{counted(len(self.trials), 'trial')}, {stages}{shared}{there}"]
        for trial in self.trials:
            marks = " -> ".join(
                f"{stage.stage_name}{' (there)' if standing(stage) else ''}"
                for stage in self.chain(trial)
            )
            lines.append(f"  {trial.name}: {marks}")
        return lines


def training_sets(trials: Sequence[Trial]) -> dict[str, TrainingData]:
    """The distinct training sets of all trials, named by the stages that use them.

    A further set is one of its own. Where trials differ in what a stage trains on, the name of the
    set's first trial stands behind.
    """
    users: dict[str, dict[str, str]] = {}  # the set's digest -> its stages -> the first trial
    sets: dict[str, TrainingData] = {}
    for trial in trials:
        for stages, data in trial.experiment.mined_sets().items():
            digest = data.joined_groups().digest
            sets.setdefault(digest, data)
            for stage in stages:
                users.setdefault(digest, {}).setdefault(stage, trial.name)
    named: dict[str, TrainingData] = {}
    for digest, first_trials in users.items():
        name, first = ", ".join(first_trials), next(iter(first_trials.values()))
        named[name if name not in named else f"{name} ({first})"] = sets[digest]
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

    def finished(self, position: int) -> list[str]:
        """The trial ended, well or not: stages it did not commit are free again.

        Returns:
            The digests of its stages.
        """
        freed = [digest for digest, owner in self._owner.items() if owner == position]
        for digest in freed:
            del self._owner[digest]
        return freed
