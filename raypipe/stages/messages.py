"""What a training worker sends out: sentences and rows to the job, checkpoints to the storage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from raypipe.progress import duration, say_from_afar
from raypipe.resources import CancelledWorkError
from raypipe.train.checkpoint import Checkpoints
from raypipe.train.parallel import agree
from raypipe.train.snapshot import Snapshot

Tell = Callable[[dict[str, Any]], bool]
"""Sends a report; false when nobody waits for the stage any more."""


def speaker(label: str, rank: int) -> Callable[[str], None]:
    """The loop's `say`: on rank 0, a line for the job's terminal."""

    def say(sentence: str) -> None:
        if rank == 0:
            say_from_afar(f"{label}: {sentence}")

    return say


def reporter(
    label: str, rank: int, tell: Tell, clock: Callable[[], float] = time.monotonic
) -> Callable[[dict[str, Any]], None]:
    """The loop's `report`: on rank 0, a line for the job's terminal and rows for the job.

    The line says how long the rest takes, from the second report on: by the speed since the first.
    It raises `CancelledWorkError` on every worker when the job has ended the stage.
    """

    first: dict[str, tuple[int, float]] = {}  # step and time of the first report

    def send(report: dict[str, Any]) -> None:
        if rank == 0:
            step, now = int(report["step"]), clock()
            begun, then = first.setdefault("at", (step, now))
            rest = report["total"] - step
            left = rest * (now - then) / (step - begun) if rest and step > begun else None
            say_from_afar(_line(label, report, left))
        if not agree(tell(report) if rank == 0 else None):
            raise CancelledWorkError

    return send


class Saver:
    """The loop's `save`: a thread writes snapshots while training goes on, one at a time.

    As a context it waits for the last one. A checkpoint that could not be written is an error of
    the next `save`, or of the end.
    """

    def __init__(self, files: Checkpoints, rank: int) -> None:
        self._files, self._rank = files, rank
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[str] | None = None

    def __call__(self, step: int, snapshot: Snapshot | None) -> None:
        if self._rank != 0:
            return
        assert snapshot is not None, "rank 0 has the snapshot"
        self._wait()
        self._last = self._thread.submit(self._files.write, snapshot, self._files.new_name(step))

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if kind is None:
            self._wait()


def _line(label: str, report: Mapping[str, Any], left: float | None) -> str:
    text = f"{label}: step {report['step']}/{report['total']}"
    for row in report["rows"]:
        values = {k.removeprefix("val/"): v for k, v in row.items() if k.startswith("val/")}
        if values:
            when = "validation" if row.get("step") else "before training"
            text += f"  {when} " + " ".join(f"{k} {v:.3f}" for k, v in values.items())
    losses = [row["loss"] for row in report["rows"] if "loss" in row]
    if losses:
        text += f"  loss {sum(losses) / len(losses):.4f}"
    text += f"  {report['pairs_per_second']:.0f} pairs/s"
    return text if left is None else f"{text}  {duration(left)} left"
