"""Which draw runs next: each stage has one owner, and a shared stage is never stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from raypipe.config import ConfigError
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import Choice, Trial, trial_of
from raypipe.sweep.plan import Readiness
from raypipe.sweep.search.journal import Drawn, Journal
from raypipe.sweep.search.sampler import Sampler

_DRAWS = 50  # in a row that are no valid recipe, before the search gives up


@dataclass
class Drawing:
    """The search's state: draws, which are running, which stage belongs to whom."""

    experiment: Experiment
    sampler: Sampler
    journal: Journal
    standing: Callable[[Any], bool]
    known: dict[int, Drawn] = field(default_factory=dict)
    trials: dict[int, Trial] = field(default_factory=dict)
    chains: list[Any] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    """Draw number of every chain."""

    def __post_init__(self) -> None:
        self.readiness = Readiness(self.chains, self.standing, [])
        self.again = [one for one in self.known.values() if one.state == "running"]

    @property
    def left(self) -> int:
        """Draws that are still to be made."""
        return self.experiment.sweep.search.trials - len(self.known) + len(self.again)

    def next(self) -> dict[str, Any] | None:
        """What Tune hands to the next trial; None if all that is drawn must wait."""
        position = self.readiness.next()
        if position is None and self.left > 0 and len(self.readiness.waiting) < 2:
            self._draw()
            position = self.readiness.next()
        if position is None:
            return None
        number = self.numbers[position]
        return {
            "position": position,
            "number": number,
            "choices": self.sampler.choices(self.known[number]),
            "prunable": self.alone(position),
        }

    def _draw(self) -> None:
        for _ in range(_DRAWS):
            if self.again:
                old = self.again.pop(0)
                drawn = self.sampler.draw(old.number, old.params)
            else:
                drawn = self.sampler.draw(max(self.known, default=-1) + 1)
            self.known[drawn.number] = drawn
            try:
                trial = named(self.experiment, drawn, self.sampler.choices(drawn))
            except ConfigError as error:  # two values that do not go together
                drawn.state, drawn.error = "invalid", str(error)
                self.ended(drawn)
                if self.left <= 0:
                    return
                continue
            self.journal.write(drawn)
            self.trials[drawn.number] = trial
            self.readiness.waiting.append(len(self.chains))
            self.chains.append(trial.experiment.trained().chain())
            self.numbers.append(drawn.number)
            return
        raise ConfigError(
            f"sweep.space: {_DRAWS} draws in a row are no valid recipe; the last: "
            f"{self.known[max(self.known)].error}"
        )

    def alone(self, position: int) -> bool:
        """Whether no other trial drawn so far has the last stage of this one."""
        last = self.chains[position][-1].digest
        users = [p for p, chain in enumerate(self.chains) if any(s.digest == last for s in chain)]
        return users == [position]

    def ended(self, drawn: Drawn) -> None:
        """Write down what became of a draw, and let the sampler learn from it."""
        self.journal.write(drawn)
        self.sampler.tell(drawn)


def named(experiment: Experiment, drawn: Drawn, choices: list[Choice]) -> Trial:
    """The trial of a draw."""
    shown = ", ".join(f"{key.rpartition('.')[2]}={label}" for key, label, _ in choices)
    return trial_of(experiment, choices, f"{drawn.number:03d} {shown}")


def best_trial(experiment: Experiment, drawn: Sequence[Drawn]) -> Trial:
    """The finished draw with the best validation value.

    Raises:
        RuntimeError: none finished.
    """
    finished = [one for one in drawn if one.state == "finished" and one.value is not None]
    if not finished:
        said = next((one.error for one in drawn if one.error), "all were pruned")
        raise RuntimeError(f"no trial of the search finished: {said}")
    best = max(finished, key=lambda one: (one.value or 0.0, -one.number))
    sampler = Sampler(experiment.sweep.axes(), experiment.sweep.search)
    return named(experiment, best, sampler.choices(best))
