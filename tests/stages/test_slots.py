"""Training slots: who gets which work, what a death or an error costs, and what a slot leaves."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from raypipe.resources import CancelledWorkError, Resources
from raypipe.stages.slots import FailedWorkError, Manager, Outcome, Shape, _Slot, open_slots
from raypipe.storage.artifacts import Store

ONE = Shape(1, 1.0, 0.0)
TWO = Shape(2, 1.0, 0.0)


class Scripted(Manager):
    """A manager whose slots are started on paper."""

    def __init__(self) -> None:
        super().__init__(None, "")  # type: ignore[arg-type]
        self.begun: list[int] = []

    def _start(self, work) -> None:
        slot_id = self._count = self._count + 1
        self.begun.append(slot_id)
        self._slots[slot_id] = _Slot(work.shape, work)

    async def give(self, key: str, shape: Shape = ONE, most: int = 1, deaths: int = 1) -> int:
        return await self.submit(key, shape, key.encode(), most, deaths)

    async def ended(self, slot_id: int) -> None:
        async with self._changed:
            self._slots.pop(slot_id).over.set()
            self._assign()


def scripted(test: Any) -> Any:
    """Run a coroutine function as a test; one that hangs fails."""

    def run() -> None:
        work: Coroutine[Any, Any, None] = test(Scripted())
        asyncio.run(asyncio.wait_for(work, 20))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def asleep(waiting: asyncio.Future[Any]) -> bool:
    await asyncio.sleep(0.02)
    return not waiting.done()


@scripted
async def test_a_slot_takes_one_work_after_the_other(manager):
    first, second = await manager.give("a"), await manager.give("b")
    (slot,) = manager.begun
    assert await manager.next(slot, None) == (first, b"a")
    next_work = asyncio.ensure_future(manager.next(slot, first))
    assert await asleep(next_work)
    await manager.done(first, 0, "result", "")
    assert await next_work == (second, b"b")
    assert await manager.listen(first, 0) == ([], Outcome(["result"]))
    assert manager.begun == [slot]


@scripted
async def test_as_many_slots_as_fit(manager):
    for key in "abcd":
        await manager.give(key, most=3)
    assert len(manager.begun) == 3 and [work.key for work in manager._waiting] == ["d"]


@scripted
async def test_work_ends_when_every_worker_is_through(manager):
    number = await manager.give("a", TWO)
    await manager.done(number, 1, "one", "")
    listening = asyncio.ensure_future(manager.listen(number, 0))
    assert await asleep(listening)
    await manager.done(number, 0, "zero", "")
    assert await listening == ([], Outcome(["zero", "one"]))


@scripted
async def test_an_error_ends_the_work_and_not_the_slot(manager):
    first, second = await manager.give("a"), await manager.give("b")
    (slot,) = manager.begun
    await manager.done(first, 0, None, "Traceback\nValueError: wrong")
    assert await manager.listen(first, 0) == ([], Outcome([None], "Traceback\nValueError: wrong"))
    assert await manager.next(slot, first) == (second, b"b")


@scripted
async def test_deaths_are_counted_per_work(manager):
    first, second = await manager.give("a"), await manager.give("b")
    (slot,) = manager.begun
    await manager.died(slot, "killed")
    assert await manager.next(slot, None) == (first, b"a")  # its new process goes on
    await manager.died(slot, "killed again")
    assert await manager.listen(first, 0) == ([], Outcome(error="killed again"))
    await manager.died(slot, "killed")
    assert await manager.next(slot, None) == (second, b"b")


@scripted
async def test_reports_are_heard_in_order_and_once(manager):
    number = await manager.give("a")
    assert await manager.report(number, {"step": 1}) and await manager.report(number, {"step": 2})
    assert await manager.listen(number, 0) == ([{"step": 1}, {"step": 2}], None)
    listening = asyncio.ensure_future(manager.listen(number, 2))
    assert await asleep(listening)
    await manager.report(number, {"step": 3})
    assert await listening == ([{"step": 3}], None)


@scripted
async def test_work_of_a_caller_that_is_gone_ends_at_its_next_report(manager):
    first = await manager.give("a")
    again = await manager.give("a")  # by a trial that was started again
    assert not await manager.report(first, {})
    (slot,) = manager.begun
    await manager.done(first, 0, None, "it was cancelled")
    assert await manager.next(slot, first) == (again, b"a")


@scripted
async def test_cancelled_work_that_waits_never_begins(manager):
    await manager.give("a")
    waiting = await manager.give("b")
    await manager.cancel(["b"])
    assert (await manager.listen(waiting, 0))[1] == Outcome(error="it was cancelled")
    assert manager._waiting == []


@scripted
async def test_slots_of_another_shape_make_room(manager):
    first = await manager.give("a")
    (slot,) = manager.begun
    await manager.done(first, 0, None, "")
    wide = await manager.give("b", TWO)
    assert await manager.next(slot, first) is None  # the idle slot ends
    assert await manager.next(manager.begun[1], None) == (wide, b"b")


@scripted
async def test_idle_slots_rest_when_their_cpus_are_needed(manager):
    for key in "ab":
        await manager.give(key, most=2)
    idle, busy = manager.begun
    (number, _) = await manager.next(idle, None)
    await manager.done(number, 0, None, "")
    resting = asyncio.ensure_future(manager.rest())
    assert await manager.next(idle, number) is None and await asleep(resting)
    await manager.ended(idle)
    await resting
    assert list(manager._slots) == [busy]


@scripted
async def test_a_manager_that_was_started_again_knows_no_work(manager):
    assert (await manager.listen(7, 0))[1].error == "its manager died"
    assert not await manager.report(7, {})
    await manager.done(7, 0, None, "")


# --- on a cluster --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Says:
    """Work that tells its process; it can fail, or go on until it is cancelled."""

    error: str = ""
    endless: bool = False

    def run(self, rank: int, world: int, tell: Any) -> tuple[int, int]:
        if self.error:
            raise ValueError(self.error)
        while tell({"rows": [], "pid": os.getpid()}) and self.endless:
            time.sleep(0.05)
        if self.endless:
            raise CancelledWorkError
        return os.getpid(), world


@pytest.mark.ray
def test_a_slot_lives_on_after_errors_and_cancelled_work(cluster, tmp_path):
    """Deaths are test_stage's and chaos/test_kill_slots's."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    resources = Resources(workers=1, cpus_per_worker=int(ray.cluster_resources()["CPU"]))
    with open_slots(Store(str(tmp_path)), shared=True) as slots:
        heard: list[dict[str, Any]] = []
        ((pid, _),) = slots.run(Says(), resources, "a", heard.append)
        assert [report["pid"] for report in heard] == [pid] != [os.getpid()]
        with pytest.raises(FailedWorkError, match=r"(?s)in run.*ValueError: of its own$"):
            slots.run(Says(error="of its own"), resources, "b")

        def stop(report: dict[str, Any]) -> None:
            raise SystemExit

        with pytest.raises(SystemExit):  # as Tune ends a pruned trial
            slots.run(Says(endless=True), resources, "c", stop)
        assert slots.run(Says(), resources, "d") == [(pid, 1)]
        assert ray.available_resources().get("CPU", 0) == 0
        slots.rest()
        deadline = time.monotonic() + 60
        while ray.available_resources().get("CPU", 0) < resources.cpus_per_worker:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert not list(tmp_path.glob(".tune/*"))
