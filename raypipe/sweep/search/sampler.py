"""Draws from a space of choices and ranges, with Optuna."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raypipe.recipe.space import Axis, Integer, Search
from raypipe.recipe.trials import Choice
from raypipe.sweep.search.journal import Drawn

if TYPE_CHECKING:
    import optuna


class Sampler:
    """Proposes trials and learns from their values (higher is better).

    Args:
        known: draws of an interrupted search; those that ended are learnt from.
    """

    def __init__(self, axes: Sequence[Axis], search: Search, known: Sequence[Drawn] = ()) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._axes = axes
        self._study = optuna.create_study(
            direction="maximize", sampler=_sampler(search, len(known))
        )
        self._open: dict[int, optuna.Trial] = {}
        for one in known:
            if one.state in ("finished", "pruned") and one.value is not None:
                self._study.add_trial(self._ended(one))

    def draw(self, number: int, params: Mapping[str, Any] | None = None) -> Drawn:
        """A new draw; or a known one, to be run again."""
        if params is not None:
            self._study.enqueue_trial(dict(params))
        trial = self._study.ask()
        self._open[number] = trial
        found: dict[str, Any] = {}
        for axis in self._axes:
            if axis.applies({k: str(v) for k, v in found.items()}):
                found[axis.key] = _suggest(trial, axis)
        return Drawn(number, found)

    def choices(self, drawn: Drawn) -> list[Choice]:
        """(dotted key, label, value) of a draw."""
        by_key = {axis.key: axis for axis in self._axes}
        return [
            (key, value, by_key[key].values[value])
            if by_key[key].range is None
            else (key, f"{value:.3g}", value)
            for key, value in drawn.params.items()
        ]

    def tell(self, drawn: Drawn) -> None:
        """What became of a draw."""
        from optuna.trial import TrialState

        trial = self._open.pop(drawn.number)
        if drawn.value is None or drawn.state not in ("finished", "pruned"):
            self._study.tell(trial, state=TrialState.FAIL)
            return
        # a stopped trial counts with what it reached, as TPE cannot learn from a state alone
        self._study.tell(trial, drawn.value)

    def _ended(self, drawn: Drawn) -> Any:
        from optuna.trial import create_trial

        by_key = {axis.key: axis for axis in self._axes}
        return create_trial(
            params=dict(drawn.params),
            distributions={key: _distribution(by_key[key]) for key in drawn.params},
            value=drawn.value,
        )


def _sampler(search: Search, known: int) -> Any:
    from optuna.samplers import RandomSampler, TPESampler

    seed = search.seed + 1_000_003 * known  # a continued search must not draw its beginning again
    if search.algorithm == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():  # it says that options are new; they are what is meant here
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
    one = axis.range
    if one is None:
        return trial.suggest_categorical(axis.key, list(axis.values))
    if isinstance(one, Integer):
        return int(trial.suggest_int(axis.key, one.low, one.high, log=one.log))
    value = float(trial.suggest_float(axis.key, one.low, one.high, log=one.log))
    return _rounded(value, one.low, one.high)


def _rounded(value: float, low: float, high: float) -> float:
    return min(max(float(f"{value:.4g}"), low), high) if math.isfinite(value) else value


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    one = axis.range
    if one is None:
        return CategoricalDistribution(list(axis.values))
    if isinstance(one, Integer):
        return IntDistribution(one.low, one.high, log=one.log)
    return FloatDistribution(one.low, one.high, log=one.log)
