"""Training slots: processes that train one stage after another, and score between stages.

To start processes takes longer than a short stage. So a job starts Train runs one by one, as many
as fit at once, and each takes work until none is left. A manager, one actor per job, hands the work
out, collects what it reports, and lets go of a slot whose CPUs others need.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raypipe.resources import CancelledWorkError, Resources, SlotWork
from raypipe.storage.inventory import TUNE
from raypipe.storage.root import StorageRoot

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

_LISTEN_S = 5.0
"""An answer to one who listens for reports comes after at most so long."""
_MANAGERS = 3
"""So often work is handed in, when managers die."""


class FailedWorkError(RuntimeError):
    """Work in a slot failed; the last line of the text says why."""


@dataclass(frozen=True)
class Shape:
    """What the workers of a slot ask for; work of another shape gets slots of its own."""

    workers: int
    cpus: float
    gpus: float
    """Of a worker; 0 where it trains on CPUs."""

    @classmethod
    def of(cls, resources: Resources) -> Shape:
        """The shape for resources that `for_trials` has settled."""
        assert resources.cpus_per_worker is not None, "settled by for_trials"
        gpus = resources.gpus_per_worker if resources.use_gpu() else 0.0
        return cls(resources.workers, resources.cpus_per_worker, gpus)


@dataclass
class Outcome:
    """How work ended: a result per worker, or an error."""

    results: list[Any] = field(default_factory=list)
    error: str = ""


LOST = Outcome(error="its manager died")


@dataclass
class _Work:
    number: int
    key: str
    shape: Shape
    pickled: bytes
    most: int
    """So many slots of this shape fit at once."""
    deaths: int
    """So many more deaths of a worker are forgiven."""
    reports: list[dict[str, Any]] = field(default_factory=list)
    results: dict[int, Any] = field(default_factory=dict)
    cancelled: bool = False
    outcome: Outcome | None = None


@dataclass
class _Slot:
    shape: Shape
    work: _Work | None
    ending: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)
    run: asyncio.Task[None] | None = None
    """Kept, or it would be collected while it waits."""

    @property
    def idle(self) -> bool:
        return self.work is None and not self.ending


class Manager:
    """Who works on what; lives in an actor, all of whose methods run on one event loop."""

    def __init__(self, storage: StorageRoot, folder: str) -> None:
        # `fit` waits in threads of its own, which Ray takes for the event loop
        os.environ.setdefault("RAY_WARN_BLOCKING_GET_INSIDE_ASYNC", "0")
        self._storage = storage
        self._folder = folder
        self._slots: dict[int, _Slot] = {}
        self._works: dict[int, _Work] = {}
        self._waiting: list[_Work] = []
        self._count = 0
        self._changed = asyncio.Condition()

    # --- for those who have work -----------------------------------------------------------------

    async def submit(self, key: str, shape: Shape, pickled: bytes, most: int, deaths: int) -> int:
        """Take work; earlier work of the same key ends. Returns the work's number."""
        await self.cancel([key])
        async with self._changed:
            self._count += 1
            work = _Work(self._count, key, shape, pickled, most, deaths)
            self._works[work.number] = work
            self._waiting.append(work)
            self._assign()
        return work.number

    async def listen(self, number: int, heard: int) -> tuple[list[dict[str, Any]], Outcome | None]:
        """Reports after the first `heard`, and the outcome once there is one.

        A manager that was started again knows nothing of earlier work: the outcome is `LOST`.
        """
        work = self._works.get(number)
        if work is None:
            return [], LOST
        async with self._changed:
            news = self._changed.wait_for(lambda: len(work.reports) > heard or work.outcome)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news, _LISTEN_S)
            if work.outcome is not None:
                del self._works[number]
            return work.reports[heard:], work.outcome

    async def cancel(self, keys: Iterable[str]) -> None:
        """Nobody waits for the work of these keys: begun work ends at its next report."""
        async with self._changed:
            for work in [w for w in self._works.values() if w.key in keys]:
                work.cancelled = True
                if work in self._waiting:
                    self._end(work, Outcome(error="it was cancelled"))

    async def rest(self) -> None:
        """End the slots that have no work, and wait until their CPUs are free."""
        async with self._changed:
            ending = [slot for slot in self._slots.values() if slot.work is None]
            for slot in ending:
                slot.ending = True
            self._changed.notify_all()
        await asyncio.gather(*(slot.over.wait() for slot in ending))

    async def close(self) -> None:
        """End all work and all slots."""
        await self.cancel([work.key for work in self._works.values()])
        async with self._changed:
            ending = list(self._slots.values())
            for slot in ending:
                slot.ending = True
            self._changed.notify_all()
        await asyncio.gather(*(slot.over.wait() for slot in ending))

    # --- for the workers of slots ----------------------------------------------------------------

    async def next(self, slot_id: int, done: int | None) -> tuple[int, bytes] | None:
        """The slot's work, waited for, as (number, pickled work); None when the slot ends.

        Args:
            done: the number of the work that the worker did last; None from a fresh process, which
                takes up what a dead one left.
        """
        slot = self._slots[slot_id]
        async with self._changed:
            await self._changed.wait_for(
                lambda: slot.ending or (slot.work is not None and slot.work.number != done)
            )
            if slot.work is None or slot.work.number == done:
                return None
            return slot.work.number, slot.work.pickled

    async def report(self, number: int, report: dict[str, Any]) -> bool:
        """Keep a report; whether the work is still wanted."""
        work = self._works.get(number)
        if work is None or work.cancelled:
            return False
        async with self._changed:
            work.reports.append(report)
            self._changed.notify_all()
        return True

    async def done(self, number: int, rank: int, result: Any, error: str) -> None:
        """A worker is through with its share of the work."""
        async with self._changed:
            work = self._works.get(number)
            if work is None or work.outcome is not None:
                return
            work.results[rank] = result
            if error or len(work.results) == work.shape.workers:
                results = [work.results[rank] for rank in sorted(work.results)]
                self._end(work, Outcome(results, error))

    async def died(self, slot_id: int, error: str) -> None:
        """Workers of the slot died; its next ones take the work up, if that is allowed."""
        async with self._changed:
            work = self._slots[slot_id].work
            if work is None:
                return
            work.results.clear()
            work.deaths -= 1
            if work.deaths < 0 or work.cancelled:
                self._end(work, Outcome(error=error))

    # --- within ----------------------------------------------------------------------------------

    def _end(self, work: _Work, outcome: Outcome) -> None:
        work.outcome = outcome
        if work in self._waiting:
            self._waiting.remove(work)
        for slot in self._slots.values():
            if slot.work is work:
                slot.work = None
        self._assign()

    def _assign(self) -> None:
        """Give waiting work to idle slots, and start slots where there is room."""
        for work in list(self._waiting):
            alike = [slot for slot in self._slots.values() if slot.shape == work.shape]
            idle = [slot for slot in alike if slot.idle]
            if idle:
                idle[0].work = work
            elif sum(not slot.ending for slot in alike) < work.most:
                for slot in self._slots.values():  # their CPUs are needed
                    slot.ending |= slot.idle
                self._start(work)
            else:
                continue
            self._waiting.remove(work)
        self._changed.notify_all()

    def _start(self, work: _Work) -> None:
        import ray

        slot_id = self._count = self._count + 1
        slot = self._slots[slot_id] = _Slot(work.shape, work)
        trainer = _trainer(
            work.shape,
            {"manager": ray.get_runtime_context().current_actor, "slot": slot_id},
            self._folder,
            self._storage.fs,
        )

        async def run() -> None:
            # in a thread of its own, as `fit` returns when the slot ends
            error = await asyncio.get_running_loop().run_in_executor(
                ThreadPoolExecutor(1), _error_of, trainer.fit
            )
            async with self._changed:
                del self._slots[slot_id]
                if slot.work is not None:
                    self._end(slot.work, Outcome(error=error or "its processes ended"))
                slot.over.set()
                self._assign()

        slot.run = asyncio.create_task(run())


def _error_of(fit: Callable[[], Any]) -> str:
    try:
        fit()
    except Exception as error:
        return "".join(traceback.format_exception_only(error)).strip()
    return ""


def _trainer(shape: Shape, config: Mapping[str, Any], folder: str, fs: Any) -> TorchTrainer:
    """Ray Train's trainer without the actor that hands out Ray Data's sets: no stage has one, and
    the actor's start takes two seconds of a CPU."""
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, UserCallback
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks import DatasetsCallback

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [c for c in callbacks if not isinstance(c, DatasetsCallback)]

    class Deaths(UserCallback):
        """In the controller's process, tells the manager."""

        def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Any]) -> None:
            import ray

            first = worker_exceptions[min(worker_exceptions)]
            ray.get(config["manager"].died.remote(config["slot"], str(first).strip()))

    return Trainer(
        _work_until_the_end,
        train_loop_config=dict(config),
        scaling_config=ScalingConfig(
            num_workers=shape.workers,
            use_gpu=shape.gpus > 0,
            resources_per_worker={"CPU": shape.cpus}
            | ({"GPU": shape.gpus} if shape.gpus > 0 else {}),
        ),
        run_config=RunConfig(
            name=f"slot-{config['slot']}",
            storage_path=folder,
            storage_filesystem=fs,
            failure_config=FailureConfig(max_failures=-1),  # the manager counts, per work
            logging_config=LoggingConfig(log_level="WARNING"),
            callbacks=[Deaths()],
        ),
    )


def _work_until_the_end(config: Mapping[str, Any]) -> None:
    """`train_loop_per_worker`: the slot's work, one after the other."""
    import gc

    import ray
    import ray.train

    manager, slot = config["manager"], config["slot"]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    number: int | None = None
    while (given := ray.get(manager.next.remote(slot, number))) is not None:
        number, pickled = given
        result, error = None, ""
        try:
            work: SlotWork = ray.cloudpickle.loads(pickled)
            result = work.run(rank, world, _teller(manager, number))
        except CancelledWorkError:
            error = "it was cancelled"
        except Exception:
            if world > 1:  # others may wait for this process in the middle of a step
                raise
            error = traceback.format_exc()
        work = pickled = given = None  # type: ignore[assignment]  # before the next model
        gc.collect()
        ray.get(manager.done.remote(number, rank, result, error))


def _teller(manager: Any, number: int) -> Callable[[dict[str, Any]], bool]:
    import ray

    def tell(report: dict[str, Any]) -> bool:
        wanted: bool = ray.get(manager.report.remote(number, report))
        return wanted

    return tell


@dataclass(frozen=True)
class Slots:
    """A job's slots, from any of its processes; see `Slots` of `Context`."""

    manager: Any
    shared: bool

    def run(
        self,
        work: SlotWork,
        resources: Resources,
        key: str,
        on_report: Callable[[dict[str, Any]], None] = lambda report: None,
    ) -> list[Any]:
        """Do work in a slot; its results by rank.

        Args:
            key: earlier work of the same key, whose caller is gone, ends.
            on_report: called in this thread with each report.

        Raises:
            FailedWorkError: with the worker's traceback.
        """
        import ray

        shape, most = Shape.of(resources), resources.slots()
        asked = (key, shape, ray.cloudpickle.dumps(work), most, resources.worker_failures)
        outcome: Outcome | None = None
        try:
            for _ in range(_MANAGERS):
                with contextlib.suppress(ray.exceptions.RayActorError):
                    outcome = self._outcome(ray.get(self.manager.submit.remote(*asked)), on_report)
                    if outcome != LOST:
                        break
        finally:
            if outcome is None:
                self.cancel([key])
        if outcome is None or outcome.error:
            raise FailedWorkError((outcome or LOST).error)
        return outcome.results

    def _outcome(self, number: int, on_report: Callable[[dict[str, Any]], None]) -> Outcome:
        import ray

        heard = 0
        while True:
            reports, outcome = ray.get(self.manager.listen.remote(number, heard))
            heard += len(reports)
            for report in reports:
                on_report(report)
            if outcome is not None:
                ended: Outcome = outcome
                return ended

    def cancel(self, keys: Iterable[str]) -> None:
        """Begun work of these keys ends at its next report."""
        self.manager.cancel.remote(list(keys))

    def rest(self) -> None:
        """Free the CPUs and GPUs of slots that have no work."""
        import ray

        ray.get(self.manager.rest.remote())


@contextlib.contextmanager
def open_slots(storage: StorageRoot, *, shared: bool) -> Iterator[Slots]:
    """Slots that end with the block.

    Args:
        shared: whether several trials use them at once, so that a trial's scoring must be done in
            its slot: no CPU is free beside them.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    manager = (
        ray.remote(Manager)
        .options(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
        .remote(storage, folder := f"{storage.root}/{TUNE}/slots-{uuid.uuid4().hex[:8]}")
    )
    try:
        yield Slots(manager, shared)
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(manager.close.remote())
    finally:  # after an error, without waiting for what its workers are in the middle of
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(manager)
        with contextlib.suppress(OSError):
            storage.fs.delete_dir(folder)
