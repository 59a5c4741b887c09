"""Which draw runs next: each stage has one owner, and a shared stage is never stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from raypipe.config import ConfigError
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import Choice, Trial, trial_of
from raypipe.stages.stage import Stage
from raypipe.storage.artifacts import Step
from raypipe.sweep.plan import Readiness
from raypipe.sweep.search.journal import Draw, Journal
from raypipe.sweep.search.space_sampler import SpaceSampler

_INVALID = 50  # draws in a row that are no valid recipe, before the search gives up


@dataclass
class SearchState:
    """The draws of a search: which are known, which run, and which stage belongs to whom."""

    experiment: Experiment
    sampler: SpaceSampler
    journal: Journal
    standing: Callable[[Step], bool]
    draws: dict[int, Draw] = field(default_factory=dict)
    """By number, those of earlier runs among them."""
    chains: list[Sequence[Stage]] = field(default_factory=list)
    """Stages of every trial of this run, by the trial's position."""
    numbers: list[int] = field(default_factory=list)
    """Draw number of every trial, by the trial's position."""

    def __post_init__(self) -> None:
        self.readiness = Readiness(self.chains, self.standing, [])
        self.interrupted = [draw for draw in self.draws.values() if draw.state == "running"]

    @property
    def left(self) -> int:
        """Draws that are still to be run."""
        return self.experiment.sweep.search.trials - len(self.draws) + len(self.interrupted)

    def next(self) -> dict[str, Any] | None:
        """The config of the next trial for Tune; None if every drawn trial must wait."""
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
            "choices": self.sampler.choices(self.draws[number]),
            "prunable": self.alone(position),
        }

    def _draw(self) -> None:
        """Add a trial that waits: an interrupted draw again, or a new one.

        Raises:
            ConfigError: too many draws in a row are no valid recipe.
        """
        for _ in range(_INVALID):
            if self.interrupted:
                old = self.interrupted.pop(0)
                draw = self.sampler.draw(old.number, old.params)
            else:
                draw = self.sampler.draw(max(self.draws, default=-1) + 1)
            self.draws[draw.number] = draw
            try:
                trial = trial_of_draw(self.experiment, draw.number, self.sampler.choices(draw))
            except ConfigError as error:  # two values that do not go together
                draw.state, draw.error = "invalid", str(error)
                self.ended(draw)
                if self.left <= 0:
                    return
                continue
            self.journal.write(draw)
            self.readiness.waiting.append(len(self.chains))
            self.chains.append(trial.experiment.trained().chain())
            self.numbers.append(draw.number)
            return
        raise ConfigError(
            f"sweep.space: {_INVALID} draws in a row are no valid recipe; name with `when` the "
            f"choices under which a key applies. The last: {self.draws[max(self.draws)].error}"
        )

    def alone(self, position: int) -> bool:
        """Whether no other trial drawn so far has the last stage of this one."""
        last = self.chains[position][-1].digest
        users = [
            user
            for user, chain in enumerate(self.chains)
            if any(stage.digest == last for stage in chain)
        ]
        return users == [position]

    def pruned_stages(self) -> list[Stage]:
        """Last stages of pruned trials."""
        return [
            chain[-1]
            for number, chain in zip(self.numbers, self.chains, strict=True)
            if self.draws[number].state == "pruned"
        ]

    def ended(self, draw: Draw) -> None:
        """Write down what became of a draw, and let the sampler learn from it."""
        self.journal.write(draw)
        self.sampler.tell(draw)


def trial_of_draw(experiment: Experiment, number: int, choices: Sequence[Choice]) -> Trial:
    """The trial of a draw, named by its number and values."""
    settings = ", ".join(f"{key.rpartition('.')[2]}={label}" for key, label, _ in choices)
    return trial_of(experiment, choices, f"{number:03d} {settings}")


def best_trial(experiment: Experiment, draws: Sequence[Draw]) -> Trial:
    """The finished draw with the best validation value.

    Raises:
        RuntimeError: none finished.
    """
    finished = [draw for draw in draws if draw.state == "finished" and draw.value is not None]
    if not finished:
        error = next((draw.error for draw in draws if draw.error), "all were pruned")
        raise RuntimeError(f"no trial of the search finished: {error}")
    best = max(finished, key=lambda draw: (draw.value or 0.0, -draw.number))
    sampler = SpaceSampler(experiment.sweep.axes(), experiment.sweep.search)
    return trial_of_draw(experiment, best.number, sampler.choices(best))
