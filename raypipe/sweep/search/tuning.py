"""The search on Ray Tune: trials that are trained only, hopeless ones stopped.

Pruning happens within a trial's last stage, and only while no other trial shares it: a shared stage
must be finished, also one that became shared while it was trained.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from raypipe.recipe.experiment import Experiment
from raypipe.recipe.space import Asha
from raypipe.resources import Context
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.storage.claims import Claims
from raypipe.sweep.run_trial import Work, run_trial
from raypipe.sweep.runner import Runner, errors_of, say_at_once, tune_run
from raypipe.sweep.search.drawing import Drawing, named
from raypipe.sweep.search.journal import Drawn, Journal
from raypipe.sweep.search.sampler import Sampler
from raypipe.sweep.tracked_rows import PHASE_TAG
from raypipe.tracking.relay import Relay


class DrawnSearch(Searcher):
    """Ray Tune's side of the search."""

    def __init__(self, drawing: Drawing) -> None:
        super().__init__()
        self._drawing = drawing
        self._asked: dict[str, dict[str, Any]] = {}
        """Tune's id of a trial to its config."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next draw, None to ask again later."""
        config = self._drawing.next()
        if config is not None:
            self._asked[trial_id] = config
            return config
        if self._drawing.left <= 0 and not self._drawing.readiness.waiting:
            return Searcher.FINISHED
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the validation curve."""
        _keep(self._drawing.known[self._asked[trial_id]["number"]], result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Write down whether it finished, was pruned or failed; free its stages."""
        config = self._asked[trial_id]
        drawn = self._drawing.known[config["number"]]
        if error:
            drawn.state = "failed"
        elif result is not None and result.get("finished"):
            drawn.state, drawn.value = "finished", float(result["value"])
        else:
            drawn.state = "pruned"
            _keep(drawn, result or {})  # Tune tells a searcher of the last one only here
            drawn.value = drawn.curve[-1] if drawn.curve else None
        self._drawing.ended(drawn)
        self._drawing.readiness.finished(config["position"])

    def read_errors(self, results: Iterable[Any]) -> None:
        """Write down why trials failed; while Tune runs it says only that they did."""
        numbers = {one: config["number"] for one, config in self._asked.items()}
        for number, error in errors_of(results, numbers):
            drawn = self._drawing.known[number]
            drawn.error = error
            self._drawing.journal.write(drawn)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal has it."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """Validation is always maximised."""
        return True


def _keep(drawn: Drawn, result: dict[str, Any]) -> None:
    """A validation, in its place: a trial that is run again tells them from the first on."""
    if "validation" in result:
        drawn.curve[int(result["validation"]) - 1 :] = [float(result["value"])]


def search(experiment: Experiment, runner: Runner) -> list[Drawn]:
    """Run the search to its number of trials; returns all draws, those of earlier runs too."""
    from ray import tune

    store = runner.builder.store
    journal = Journal.of(experiment, store)
    known = {one.number: one for one in journal.read()}
    sampler = Sampler(experiment.sweep.axes(), experiment.sweep.search, list(known.values()))
    drawing = Drawing(
        experiment, sampler, journal, lambda step: store.find(step) is not None, known
    )
    if drawing.left <= 0:
        return list(known.values())
    slots = runner.settle(drawing.left)
    trainable = functools.partial(
        _trainable,
        experiment=experiment,
        store=store,
        context=runner.inner_context(slots),
        relay=runner.relay,
        parent=runner.parent,
    )
    drawer = DrawnSearch(drawing)
    results = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0, "memory": 1 << 20}),
        tune_config=tune.TuneConfig(
            num_samples=drawing.left,
            search_alg=drawer,
            scheduler=scheduler(drawing),
            max_concurrent_trials=slots,
        ),
        run_config=tune_run(runner.parent, store.uri, experiment.name, runner.retries),
    ).fit()
    drawer.read_errors(results)
    _sweep_away(drawing, store)
    return list(drawing.known.values())


def scheduler(drawing: Drawing) -> TrialScheduler:
    """What decides, after every validation, whether a trial goes on."""
    asha = drawing.experiment.sweep.search.pruning
    return FIFOScheduler() if asha is None else Pruning(drawing, asha)


class Pruning(AsyncHyperBandScheduler):
    """ASHA that stops no stage which another trial shares by now."""

    def __init__(self, drawing: Drawing, asha: Asha) -> None:
        super().__init__(
            time_attr="validation",
            metric="value",
            mode="max",
            max_t=10**6,  # the stage itself ends
            grace_period=asha.grace,
            reduction_factor=asha.reduction,
            stop_last_trials=False,
        )
        self._drawing = drawing

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """ASHA's decision, unless somebody waits for the stage."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        alone = self._drawing.alone(trial.config["position"])
        return decision if alone else TrialScheduler.CONTINUE


@dataclass
class Validations:
    """Rank 0's validation values, to Tune; lives in Train's controller.

    A trial that is run again has another one, which hears of all validations from the first on: a
    resumed training reports its whole history, so the count is right again.
    """

    callback: Any
    key: str
    count: int = 0

    def __call__(self, metrics: dict[str, Any]) -> None:
        for row in metrics["rows"]:
            if self.key in row:
                self.count += 1
                told = {"validation": self.count, "value": float(row[self.key])}
                self.callback.after_report(None, [told], None)


def _trainable(
    config: dict[str, Any],
    experiment: Experiment,
    store: Store,
    context: Context,
    relay: Relay,
    parent: str,
) -> None:
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    choices = [(key, label, value) for key, label, value in config["choices"]]
    trial = named(experiment, Drawn(config["number"], {}), choices)
    measure = experiment.evaluation.selection
    tell = Validations(TuneReportCallback(), f"val/{measure}") if config["prunable"] else None
    builder = Builder(store, context, say_at_once, Claims(say_at_once))
    work = Work((), {PHASE_TAG: "search"})
    best = run_trial(trial, builder, relay, parent, work, tell)
    tune.report({"value": best[measure], "finished": 1})


def _sweep_away(drawing: Drawing, store: Store) -> None:
    """What pruned stages left: nobody goes on from it."""
    for number, trial in drawing.trials.items():
        stage = trial.experiment.trained()
        if drawing.known[number].state == "pruned" and store.find(stage) is None:
            with contextlib.suppress(OSError):
                store.fs.delete_dir(f"{store.root}/{stage.path}")
