"""`sweep.mode: search`: draws from the space, hopeless ones stopped, the best one tested.

A trial is trained only; validation decides. Pruning happens within a trial's last stage, and only
while no other trial shares it: a shared stage must be finished.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray.tune.search import Searcher

from raypipe.artifacts import Builder, Store
from raypipe.claims import Claims
from raypipe.config import ConfigError
from raypipe.experiment import Experiment
from raypipe.resources import Context
from raypipe.sweep.plan import Readiness
from raypipe.sweep.relay import Relay
from raypipe.sweep.runner import Runner, say_at_once, tune_run
from raypipe.sweep.search.journal import Drawn, Journal
from raypipe.sweep.search.sampler import Sampler
from raypipe.sweep.selecting import PHASE
from raypipe.sweep.space import Choice, Trial, trial_of
from raypipe.sweep.trial import Work, last_line, run_trial

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
            "prunable": self._alone(position),
        }

    def _draw(self) -> None:
        for _ in range(_DRAWS):
            if self.again:
                old = self.again.pop(0)
                drawn = self.sampler.draw(old.number, old.params)
            else:
                drawn = self.sampler.draw(len(self.known))
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

    def _alone(self, position: int) -> bool:
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


class DrawnSearch(Searcher):
    """Ray Tune's side of the search."""

    def __init__(self, drawing: Drawing) -> None:
        super().__init__()
        self._drawing = drawing
        self._running: dict[str, dict[str, Any]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next draw, None to ask again later."""
        config = self._drawing.next()
        if config is not None:
            self._running[trial_id] = config
            return config
        if self._drawing.left <= 0 and not self._drawing.readiness.waiting:
            return Searcher.FINISHED
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the validation curve."""
        drawn = self._drawing.known[self._running[trial_id]["number"]]
        if "validation" in result:
            drawn.curve.append(float(result["value"]))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Write down whether it finished, was pruned or failed; free its stages."""
        config = self._running.pop(trial_id)
        drawn = self._drawing.known[config["number"]]
        if error:
            drawn.state = "failed"
        elif result is not None and result.get("finished"):
            drawn.state, drawn.value = "finished", float(result["value"])
        else:
            drawn.state = "pruned"
            drawn.value = drawn.curve[-1] if drawn.curve else None
        self._drawing.ended(drawn)
        self._drawing.readiness.finished(config["position"])

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal has it."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """Validation is always maximised."""
        return True


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
    results = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0, "memory": 1 << 20}),
        tune_config=tune.TuneConfig(
            num_samples=drawing.left,
            search_alg=DrawnSearch(drawing),
            scheduler=_scheduler(experiment),
            max_concurrent_trials=slots,
        ),
        run_config=tune_run(runner.parent, store.uri, experiment.name, runner.retries),
    ).fit()
    for result in results:
        if result.error is not None and result.config:
            drawn = drawing.known[result.config["number"]]
            drawn.error = last_line(result.error)
            journal.write(drawn)
    _sweep_away(drawing, store)
    return list(drawing.known.values())


def best_trial(experiment: Experiment, drawn: list[Drawn]) -> Trial:
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


def _scheduler(experiment: Experiment) -> Any:
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

    asha = experiment.sweep.search.pruning
    if asha is None:
        return FIFOScheduler()
    return AsyncHyperBandScheduler(
        time_attr="validation",
        metric="value",
        mode="max",
        max_t=10**6,  # the stage itself ends
        grace_period=asha.grace,
        reduction_factor=asha.reduction,
        stop_last_trials=False,
    )


@dataclass
class _Tell:
    """Rank 0's validation values, to Tune; lives in Train's controller."""

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
    tell = _Tell(TuneReportCallback(), f"val/{measure}") if config["prunable"] else None
    builder = Builder(store, context, say_at_once, Claims(say_at_once))
    work = Work((), {PHASE: "search"})
    best = run_trial(trial, builder, relay, parent, work, tell)
    tune.report({"value": best[measure], "finished": 1})


def _sweep_away(drawing: Drawing, store: Store) -> None:
    """What pruned stages left: nobody goes on from it."""
    import contextlib

    for number, trial in drawing.trials.items():
        stage = trial.experiment.trained()
        if drawing.known[number].state == "pruned" and store.find(stage) is None:
            with contextlib.suppress(OSError):
                store.fs.delete_dir(f"{store.root}/{stage.path}")
