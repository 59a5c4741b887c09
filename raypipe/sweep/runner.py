"""Trials through Ray Tune: each stage trained once, failures retried, none stops the others."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raypipe.config import ConfigError
from raypipe.recipe.trials import Trial
from raypipe.resources import Context
from raypipe.storage.builder import Builder
from raypipe.storage.claims import Claims
from raypipe.sweep.plan import Plan, Readiness
from raypipe.sweep.run_trial import Work, last_line, run_trial
from raypipe.tracking.relay import Relay


@dataclasses.dataclass(frozen=True)
class Runner:
    """Runs trials on a cluster; what stands in the store is not run again."""

    builder: Builder
    relay: Relay
    parent: str
    """Our id of the job's tracked run."""
    retries: int

    def run(self, trials: Sequence[Trial], work: Work) -> dict[str, str]:
        """All trials; returns the errors of those that failed, by name."""
        waiting = []
        for position, trial in enumerate(trials):
            if not (work.done(trial, self.builder) and self._told(trial, work)):
                waiting.append(position)
        if not waiting:
            return {}
        self.settle(len(waiting))
        if len(waiting) == 1:  # Tune would add nothing but its start
            return self._alone(trials[waiting[0]], work)
        return self._tune(Plan.of(trials), waiting, work)

    def settle(self, count: int) -> int:
        """Share the cluster among `count` trials; how many run at once.

        Raises:
            ConfigError: not even one fits.
        """
        resources = self.builder.context.resources.for_trials(count)
        slots: int = resources.slots()
        self.builder.context = dataclasses.replace(self.builder.context, resources=resources)
        return slots

    def _told(self, trial: Trial, work: Work) -> bool:
        """Track a trial that is done; False if what stands cannot be read: then it is run."""
        try:
            run_trial(trial, self.builder, self.relay, self.parent, work)
        except Exception as error:
            self.builder.announce(f"{trial.name} stands but cannot be read: {last_line(error)}")
            return False
        return True

    def _alone(self, trial: Trial, work: Work) -> dict[str, str]:
        for left in range(self.retries, -1, -1):
            try:
                run_trial(trial, self.builder, self.relay, self.parent, work)
            except Exception as error:
                if left == 0 or isinstance(error, ConfigError):  # that would be the same again
                    return {trial.name: last_line(error)}
                self.builder.announce(f"{trial.name} failed, tried again: {last_line(error)}")
            else:
                break
        return {}

    def inner_context(self, slots: int) -> Context:
        """What a trial beside others may use."""
        import ray

        context: Context = self.builder.context
        share = max(int(ray.cluster_resources().get("CPU", 1) / slots), 1)
        inner = context.resources.replace(actors=context.resources.actors or share)
        return dataclasses.replace(context, resources=inner, progress_bars=False)

    def _tune(self, plan: Plan, waiting: list[int], work: Work) -> dict[str, str]:
        from ray import tune

        from raypipe.sweep.plan import PlannedSearch

        store = self.builder.store
        slots = self.builder.context.resources.slots()
        trainable = functools.partial(
            _trainable,
            trials=list(plan.trials),
            store=store,
            context=self.inner_context(slots),
            relay=self.relay,
            parent=self.parent,
            work=work,
        )
        search = PlannedSearch(
            Readiness(plan.chains, lambda step: store.find(step) is not None, waiting)
        )
        results = tune.Tuner(
            # a trial only waits for its training; CPUs would be taken from that
            tune.with_resources(trainable, {"cpu": 0, "memory": 1 << 20}),
            tune_config=tune.TuneConfig(
                num_samples=len(waiting),
                search_alg=search,
                max_concurrent_trials=slots,
            ),
            run_config=tune_run(
                self.parent, store.uri, plan.trials[0].experiment.name, self.retries
            ),
        ).fit()
        return {plan.trials[at].name: error for at, error in errors_of(results, search.asked)}


def errors_of(results: Iterable[Any], asked: Mapping[str, int]) -> list[tuple[int, str]]:
    """What was asked of each trial that failed, and the last line of its error.

    A trial whose process died before it could describe itself has no config; its id it has always.

    Args:
        results: Tune's.
        asked: Tune's id of a trial to what was asked of it.
    """
    return [
        (asked[result.metrics["trial_id"]], last_line(result.error))
        for result in results
        if result.error is not None
    ]


def tune_run(parent: str, storage: str, name: str, retries: int) -> Any:
    """Tune's own files go below the storage; a trial that fails is run again `retries` times."""
    from ray import tune

    return tune.RunConfig(
        name=f"{name}-{parent[:8]}",
        storage_path=f"{storage.rstrip('/')}/.tune",
        failure_config=tune.FailureConfig(max_failures=retries),
        verbose=0,
    )


def _trainable(
    config: dict[str, Any],
    trials: list[Trial],
    store: Any,
    context: Context,
    relay: Relay,
    parent: str,
    work: Work,
) -> None:
    from ray import tune

    builder = Builder(store, context, say_at_once, Claims(say_at_once))
    tune.report(run_trial(trials[config["trial"]], builder, relay, parent, work))


def say_at_once(line: str) -> None:
    """Ray forwards the output of a worker as it comes."""
    print(line, flush=True)
