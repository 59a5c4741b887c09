"""The search on Ray Tune: trials that are trained only, hopeless ones stopped.

Pruning happens within a trial's last stage, and only while no other trial shares it: a shared stage
must be finished, also one that became shared while it was trained.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from raypipe.recipe.experiment import Experiment
from raypipe.recipe.space import Asha
from raypipe.resources import Context
from raypipe.stages.slots import Slots
from raypipe.storage.artifacts import Store
from raypipe.storage.sweeping import sweep
from raypipe.sweep.plan import Plan
from raypipe.sweep.run_trial import Work, run_trial
from raypipe.sweep.runner import Runner, errors_of, trial_builder, tune_run
from raypipe.sweep.search.journal import Draw, Journal
from raypipe.sweep.search.space_sampler import SpaceSampler
from raypipe.sweep.search.state import SearchState, trial_of_draw
from raypipe.sweep.tracked_rows import PHASE_TAG
from raypipe.tracking.relay import Relay


class DrawSearcher(Searcher):
    """Ray Tune's side of the search."""

    def __init__(self, state: SearchState, slots: Slots) -> None:
        super().__init__()
        self._state, self._slots = state, slots
        self._configs: dict[str, dict[str, Any]] = {}
        """Tune's id of a trial to its config."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next draw, None to ask again later."""
        config = self._state.next()
        if config is not None:
            self._configs[trial_id] = config
            return config
        if self._state.left <= 0 and not self._state.readiness.waiting:
            return Searcher.FINISHED
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the validation curve."""
        _keep(self._state.draws[self._configs[trial_id]["number"]], result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Write down whether it finished, was pruned or failed; free its stages."""
        config = self._configs[trial_id]
        draw = self._state.draws[config["number"]]
        if error:
            draw.state = "failed"
        elif result is not None and result.get("finished"):
            draw.state, draw.value = "finished", float(result["value"])
        else:
            draw.state = "pruned"
            _keep(draw, result or {})  # the last validation reaches a searcher only here
            draw.value = draw.curve[-1] if draw.curve else None
        self._state.ended(draw)
        self._slots.cancel(self._state.readiness.finished(config["position"]))

    def read_errors(self, results: Iterable[Any]) -> None:
        """Write down why trials failed; while Tune runs it says only that they did."""
        numbers = {trial_id: config["number"] for trial_id, config in self._configs.items()}
        for number, error in errors_of(results, numbers):
            draw = self._state.draws[number]
            draw.error = error
            self._state.journal.write(draw)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal has it."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """Validation is always maximised."""
        return True


def _keep(draw: Draw, result: dict[str, Any]) -> None:
    """Write a validation at its position of the curve, and drop what stood behind: a trial that is
    run again tells its validations from the first on."""
    if "validation" in result:
        draw.curve[int(result["validation"]) - 1 :] = [float(result["value"])]


def search(experiment: Experiment, runner: Runner) -> list[Draw]:
    """Run the search to its number of trials; returns all draws, also those of earlier runs."""
    from ray import tune

    store = runner.builder.store
    journal = Journal.of(experiment, store)
    known = journal.read()
    sampler = SpaceSampler(experiment.sweep.axes(), experiment.sweep.search, known)
    draws = {draw.number: draw for draw in known}
    state = SearchState(
        experiment, sampler, journal, lambda step: store.find(step) is not None, draws
    )
    if state.left <= 0:
        return known
    count = runner.settle(state.left)
    with runner.slots(shared=True) as slots:
        trainable = functools.partial(
            _trainable,
            experiment=experiment,
            store=store,
            context=runner.inner_context(count),
            relay=runner.relay,
            parent=runner.parent,
            told=frozenset(runner.builder.told),
        )
        searcher = DrawSearcher(state, slots)
        results = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 0, "memory": 1 << 20}),
            tune_config=tune.TuneConfig(
                num_samples=state.left,
                search_alg=searcher,
                scheduler=scheduler(state),
                max_concurrent_trials=count,
            ),
            run_config=tune_run(runner.parent, store, experiment.name, runner.retries),
        ).fit()
    searcher.read_errors(results)
    _sweep_away(state, store)
    return list(state.draws.values())


def scheduler(state: SearchState) -> TrialScheduler:
    """What decides, after every validation, whether a trial goes on."""
    asha = state.experiment.sweep.search.pruning
    return FIFOScheduler() if asha is None else Pruning(state, asha)


class Pruning(AsyncHyperBandScheduler):
    """ASHA that stops no stage which another trial shares by now."""

    def __init__(self, state: SearchState, asha: Asha) -> None:
        super().__init__(
            time_attr="validation",
            metric="value",
            mode="max",
            max_t=10**6,  # the stage itself ends
            grace_period=asha.grace,
            reduction_factor=asha.reduction,
            stop_last_trials=False,
        )
        self._state = state

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """ASHA's decision, unless somebody waits for the stage."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        alone = self._state.alone(trial.config["position"])
        return decision if alone else TrialScheduler.CONTINUE


@dataclass
class Validations:
    """Tells Tune rank 0's validation values; Tune may end the trial's thread in answer.

    A trial that is run again counts from the first validation on: a resumed training reports its
    whole history. The start of a stage is none: not every trial's stage offers it.
    """

    tell: Callable[[dict[str, Any]], None]
    key: str
    count: int = 0

    def __call__(self, metrics: dict[str, Any]) -> None:
        for row in metrics["rows"]:
            if self.key in row and row["step"] > 0:
                self.count += 1
                self.tell({"validation": self.count, "value": float(row[self.key])})


def _trainable(
    config: dict[str, Any],
    experiment: Experiment,
    store: Store,
    context: Context,
    relay: Relay,
    parent: str,
    told: Set[str],
) -> None:
    from ray import tune

    choices = [(key, label, value) for key, label, value in config["choices"]]
    trial = trial_of_draw(experiment, config["number"], choices)
    measure = experiment.compared_by
    tell = Validations(tune.report, f"val/{measure}") if config["prunable"] else None
    builder = trial_builder(trial, store, context, told)
    work = Work(Plan.of([trial]), (), {PHASE_TAG: "search"})
    best = run_trial(trial, builder, relay, parent, work, tell)
    tune.report({"value": best[measure], "finished": 1})


def _sweep_away(state: SearchState, store: Store) -> None:
    """Remove what pruned stages left: no trial goes on from there."""
    for stage in state.pruned_stages():
        with contextlib.suppress(OSError):
            sweep(store, stage.path)
