"""Trials through Ray Tune: each stage trained once, failures retried, none stops the others."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import pyarrow.fs as pafs
from ray.tune.search import Searcher

from raypipe.config import ConfigError
from raypipe.names import path_part
from raypipe.progress import say_from_afar
from raypipe.recipe.trials import Trial
from raypipe.resources import Context
from raypipe.stages.slots import Slots, open_slots
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.storage.claims import Claims
from raypipe.storage.inventory import TUNE, TUNE_OVER
from raypipe.storage.root import StorageRoot
from raypipe.sweep.plan import Readiness
from raypipe.sweep.run_trial import Work, last_line, run_trial
from raypipe.tracking.relay import Relay


@dataclasses.dataclass(frozen=True)
class Runner:
    """Runs trials on a cluster; what stands in the store is not run again."""

    builder: Builder
    relay: Relay
    parent: str
    """The relay's id of the job's tracked run."""
    retries: int
    """How often a failed trial is run again."""

    def run(self, trials: Sequence[Trial], work: Work) -> dict[str, str]:
        """Run the trials, of the work's plan; the errors of those that failed, by name."""
        waiting = []
        for position, trial in enumerate(trials):
            if not (work.done(trial, self.builder) and self._track_done(trial, work)):
                waiting.append(position)
        if not waiting:
            return {}
        self.settle(len(waiting))
        alone = len(waiting) == 1  # Tune would add nothing but its start
        with self.slots(shared=not alone):
            if alone:
                return self._alone(trials[waiting[0]], work)
            return self._tune(trials, waiting, work)

    @contextlib.contextmanager
    def slots(self, *, shared: bool) -> Iterator[Slots]:
        """Training slots for what the builder makes in the block."""
        before = self.builder.context
        with open_slots(self.builder.store, shared=shared) as slots:
            self.builder.context = dataclasses.replace(before, slots=slots)
            try:
                yield slots
            finally:
                self.builder.context = before

    def settle(self, count: int) -> int:
        """Share the cluster among `count` trials; the number that run at once.

        Raises:
            ConfigError: not even one fits.
        """
        resources = self.builder.context.resources.for_trials(count)
        slots: int = resources.slots()
        self.builder.context = dataclasses.replace(self.builder.context, resources=resources)
        return slots

    def _track_done(self, trial: Trial, work: Work) -> bool:
        """Track a trial that is done; False if an artifact of it cannot be read, so that the trial
        must be run."""
        try:
            run_trial(trial, self.builder, self.relay, self.parent, work)
        except Exception as error:
            self.builder.announce(f"{trial.name} stands but cannot be read: {last_line(error)}")
            return False
        return True

    def _alone(self, trial: Trial, work: Work) -> dict[str, str]:
        """Run one trial in this process; its error by name, if it failed."""
        for left in range(self.retries, -1, -1):
            try:
                run_trial(trial, self.builder, self.relay, self.parent, work)
            except Exception as error:
                if left == 0 or isinstance(error, ConfigError):  # no retry mends a recipe
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

    def _tune(self, trials: Sequence[Trial], waiting: list[int], work: Work) -> dict[str, str]:
        """Run the trials at these positions through Tune; errors by name."""
        from ray import tune

        store = self.builder.store
        slots = self.builder.context.resources.slots()
        trainable = functools.partial(
            _trainable,
            trials=trials,
            store=store,
            context=self.inner_context(slots),
            relay=self.relay,
            parent=self.parent,
            work=work,
            told=frozenset(self.builder.told),
        )
        chains = work.plan.only(trials).chains
        searcher = PlanSearcher(
            Readiness(chains, lambda step: store.find(step) is not None, waiting),
            self.builder.context.slots,
        )
        results = tune.Tuner(
            # a trial only waits for its training, and a CPU of its own would be missing there
            tune.with_resources(trainable, {"cpu": 0, "memory": 1 << 20}),
            tune_config=tune.TuneConfig(
                num_samples=len(waiting),
                search_alg=searcher,
                max_concurrent_trials=slots,
            ),
            run_config=tune_run(self.parent, store, trials[0].experiment.name, self.retries),
        ).fit()
        errors = errors_of(results, searcher.positions)
        return {trials[position].name: error for position, error in errors}


class PlanSearcher(Searcher):
    """Suggests a trial as soon as nobody else is training what it needs.

    A trial that must wait is not suggested, so it holds neither a slot nor a CPU.
    """

    def __init__(self, readiness: Readiness, slots: Slots) -> None:
        super().__init__()
        self._readiness, self._slots = readiness, slots
        self.positions: dict[str, int] = {}
        """Tune's id of a trial to its position in the plan."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The position of the next trial, None to ask again later."""
        if not self._readiness.waiting:
            return Searcher.FINISHED
        position = self._readiness.next()
        if position is None:
            return None
        self.positions[trial_id] = position
        return {"trial": position}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Free what the trial did not commit."""
        self._slots.cancel(self._readiness.finished(self.positions[trial_id]))

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: what was reached stands in the artifact store."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """There is no metric to optimise."""
        return True


def errors_of(results: Iterable[Any], numbers: Mapping[str, int]) -> list[tuple[int, str]]:
    """The number of each trial that failed, and the last line of its error.

    A trial whose process died before it could describe itself has an id, but no config.

    Args:
        results: Tune's.
        numbers: Tune's id of a trial to the caller's number of it.
    """
    return [
        (numbers[result.metrics["trial_id"]], last_line(result.error))
        for result in results
        if result.error is not None
    ]


def tune_run(parent: str, storage: StorageRoot, name: str, retries: int) -> Any:
    """Tune's own files go below the storage; a trial that fails is run again `retries` times."""
    from ray import tune

    return tune.RunConfig(
        name=_tune_folder(parent, name),
        storage_path=f"{storage.root}/{TUNE}",
        storage_filesystem=None if storage.is_local else storage.fs,  # a URI would hold the keys
        failure_config=tune.FailureConfig(max_failures=retries),
        verbose=0,
    )


def _tune_folder(parent: str, name: str) -> str:
    return path_part(name, f"-{parent[:8]}")


def tune_over(parent: str, store: Store, name: str) -> None:
    """Mark Tune's folder of a job that ends, if it has one: nobody needs the folder any more."""
    folder = f"{store.root}/{TUNE}/{_tune_folder(parent, name)}"
    with contextlib.suppress(OSError):
        if store.fs.get_file_info(folder).type == pafs.FileType.Directory:
            with store.fs.open_output_stream(f"{folder}/{TUNE_OVER}"):
                pass


def _trainable(
    config: dict[str, Any],
    trials: Sequence[Trial],
    store: Any,
    context: Context,
    relay: Relay,
    parent: str,
    work: Work,
    told: Set[str],
) -> None:
    from ray import tune

    trial = trials[config["trial"]]
    builder = trial_builder(trial, store, context, told)
    tune.report(run_trial(trial, builder, relay, parent, work))


def trial_builder(trial: Trial, store: Store, context: Context, told: Set[str]) -> Builder:
    """A builder of a trial's own process, whose lines begin with the trial's name.

    Args:
        told: what the job's builder said of artifacts, which is not said again.
    """

    def say(line: str) -> None:
        say_from_afar(f"{trial.name}: {line}")

    return Builder(store, context, say, Claims(say), told=set(told))
