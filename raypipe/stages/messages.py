"""What a training worker tells: sentences, rows of history, and checkpoints, through Ray Train."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

from raypipe.train.checkpoint import Checkpoints
from raypipe.train.snapshot import Snapshot


def speaker(label: str, rank: int) -> Callable[[str], None]:
    """Prints a sentence about the stage, on rank 0."""

    def say(sentence: str) -> None:
        if rank == 0:
            print(f"{label}: {sentence}", flush=True)

    return say


def reporter(label: str, rank: int) -> Callable[[dict[str, Any]], None]:
    """The loop's `report`: a line for the log, rows for the controller."""
    import ray.train
    from ray.train import CheckpointUploadMode

    def report(row: dict[str, Any]) -> None:
        if rank == 0:
            print(_line(label, row), flush=True)
        # in its turn behind the checkpoints; a synchronous report would wait for their upload
        ray.train.report(row, checkpoint_upload_mode=CheckpointUploadMode.ASYNC)

    return report


def saver(files: Checkpoints, rank: int) -> Callable[[int, Snapshot | None], None]:
    """The loop's `save`: Ray Train writes snapshots in a thread while training goes on."""
    import ray.train
    from ray.train import Checkpoint, CheckpointUploadMode

    one_at_a_time = threading.Semaphore(1)  # else snapshots pile up in memory

    def save_snapshot(step: int, taken: Snapshot | None) -> None:
        def upload(_: Checkpoint, name: str) -> Checkpoint:
            try:
                assert taken is not None, "rank 0 has the snapshot"
                return Checkpoint(files.write(taken, name), filesystem=files.fs)
            finally:
                one_at_a_time.release()

        if rank == 0:
            one_at_a_time.acquire()
        ray.train.report(
            {"rows": [], "step": step},
            Checkpoint.from_directory(tempfile.mkdtemp()) if rank == 0 else None,
            files.new_name(step),
            CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=upload,
        )

    return save_snapshot


def _line(label: str, row: Mapping[str, Any]) -> str:
    text = f"{label}: step {row['step']}/{row['total']}"
    for one in row["rows"]:
        known = {k.removeprefix("val/"): v for k, v in one.items() if k.startswith("val/")}
        if known:
            text += "  validation " + " ".join(f"{k} {v:.3f}" for k, v in known.items())
    losses = [one["loss"] for one in row["rows"] if "loss" in one]
    if losses:
        text += f"  loss {sum(losses) / len(losses):.4f}"
    return f"{text}  {row['pairs_per_second']:.0f} pairs/s"
