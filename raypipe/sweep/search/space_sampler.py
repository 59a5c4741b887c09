"""Draws from a space of choices and ranges, with Optuna."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raypipe.recipe.space import Axis, Integer, Search
from raypipe.recipe.trials import Choice
from raypipe.sweep.search.journal import Draw

if TYPE_CHECKING:
    import optuna


class SpaceSampler:
    """Proposes trials and learns from their values (higher is better).

    Args:
        known: draws of an interrupted search; those that ended are learnt from.
    """

    def __init__(self, axes: Sequence[Axis], search: Search, known: Sequence[Draw] = ()) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._axes = axes
        self._study = optuna.create_study(
            direction="maximize", sampler=_sampler(search, len(known))
        )
        self._open: dict[int, optuna.Trial] = {}
        for draw in known:
            if draw.state in ("finished", "pruned") and draw.value is not None:
                self._study.add_trial(self._ended(draw))

    def draw(self, number: int, params: Mapping[str, Any] | None = None) -> Draw:
        """A new draw; or a known one, to be run again."""
        if params is not None:
            self._study.enqueue_trial(dict(params))
        trial = self._study.ask()
        self._open[number] = trial
        values: dict[str, Any] = {}
        for axis in self._axes:
            if axis.applies({key: str(value) for key, value in values.items()}):
                values[axis.key] = _suggest(trial, axis)
        return Draw(number, values)

    def choices(self, draw: Draw) -> list[Choice]:
        """(dotted key, label, value) of a draw."""
        by_key = {axis.key: axis for axis in self._axes}
        return [
            (key, value, by_key[key].values[value])
            if by_key[key].range is None
            else (key, f"{value:.3g}", value)
            for key, value in draw.params.items()
        ]

    def tell(self, draw: Draw) -> None:
        """Learn what became of a draw."""
        from optuna.trial import TrialState

        trial = self._open.pop(draw.number)
        if draw.value is None or draw.state not in ("finished", "pruned"):
            self._study.tell(trial, state=TrialState.FAIL)
            return
        # a stopped trial counts with its last value: TPE cannot learn from a state alone
        self._study.tell(trial, draw.value)

    def _ended(self, draw: Draw) -> Any:
        from optuna.trial import create_trial

        by_key = {axis.key: axis for axis in self._axes}
        return create_trial(
            params=dict(draw.params),
            distributions={key: _distribution(by_key[key]) for key in draw.params},
            value=draw.value,
        )


def _sampler(search: Search, known: int) -> Any:
    from optuna.samplers import RandomSampler, TPESampler

    seed = search.seed + 1_000_003 * known  # a continued search must not repeat its first draws
    if search.algorithm == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():  # Optuna warns that `multivariate` and `group` are new
        warnings.simplefilter("ignore")
        return TPESampler(
            seed=seed,
            n_startup_trials=search.startup,
            multivariate=True,
            group=True,
            constant_liar=True,
            warn_independent_sampling=False,
        )


def _suggest(trial: Any, axis: Axis) -> Any:
    bounds = axis.range
    if bounds is None:
        return trial.suggest_categorical(axis.key, list(axis.values))
    if isinstance(bounds, Integer):
        return int(trial.suggest_int(axis.key, bounds.low, bounds.high, log=bounds.log))
    value = float(trial.suggest_float(axis.key, bounds.low, bounds.high, log=bounds.log))
    return _rounded(value, bounds.low, bounds.high)


def _rounded(value: float, low: float, high: float) -> float:
    return min(max(float(f"{value:.4g}"), low), high) if math.isfinite(value) else value


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    bounds = axis.range
    if bounds is None:
        return CategoricalDistribution(list(axis.values))
    if isinstance(bounds, Integer):
        return IntDistribution(bounds.low, bounds.high, log=bounds.log)
    return FloatDistribution(bounds.low, bounds.high, log=bounds.log)
