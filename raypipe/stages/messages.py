"""What a training worker sends out: sentences to the log, rows and checkpoints to Ray Train."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

from raypipe.train.checkpoint import Checkpoints
from raypipe.train.snapshot import Snapshot


def speaker(label: str, rank: int) -> Callable[[str], None]:
    """The loop's `say`: on rank 0, a line for the log."""

    def say(sentence: str) -> None:
        if rank == 0:
            print(f"{label}: {sentence}", flush=True)

    return say


def reporter(label: str, rank: int) -> Callable[[dict[str, Any]], None]:
    """The loop's `report`: a line for the log, rows for the controller."""
    import ray.train
    from ray.train import CheckpointUploadMode

    def send(report: dict[str, Any]) -> None:
        if rank == 0:
            print(_line(label, report), flush=True)
        # asynchronous: a synchronous report would wait for the upload of the checkpoints before it
        ray.train.report(report, checkpoint_upload_mode=CheckpointUploadMode.ASYNC)

    return send


def saver(files: Checkpoints, rank: int) -> Callable[[int, Snapshot | None], None]:
    """The loop's `save`: Ray Train writes snapshots in a thread while training goes on."""
    import ray.train
    from ray.train import Checkpoint, CheckpointUploadMode

    uploading = threading.Semaphore(1)  # one at a time, else snapshots pile up in memory

    def save_snapshot(step: int, snapshot: Snapshot | None) -> None:
        def upload(_: Checkpoint, name: str) -> Checkpoint:
            try:
                assert snapshot is not None, "rank 0 has the snapshot"
                return Checkpoint(files.write(snapshot, name), filesystem=files.fs)
            finally:
                uploading.release()

        if rank == 0:
            uploading.acquire()
        ray.train.report(
            {"rows": [], "step": step},
            Checkpoint.from_directory(tempfile.mkdtemp()) if rank == 0 else None,
            files.new_name(step),
            CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=upload,
        )

    return save_snapshot


def _line(label: str, report: Mapping[str, Any]) -> str:
    text = f"{label}: step {report['step']}/{report['total']}"
    for row in report["rows"]:
        values = {k.removeprefix("val/"): v for k, v in row.items() if k.startswith("val/")}
        if values:
            text += "  validation " + " ".join(f"{k} {v:.3f}" for k, v in values.items())
    losses = [row["loss"] for row in report["rows"] if "loss" in row]
    if losses:
        text += f"  loss {sum(losses) / len(losses):.4f}"
    return f"{text}  {report['pairs_per_second']:.0f} pairs/s"
