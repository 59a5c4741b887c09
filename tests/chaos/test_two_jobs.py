"""Two jobs on one machine, each with a Ray of its own, and one job that is killed again and again.

python -m pytest -m chaos tests/chaos/test_two_jobs.py -s      prints the figures
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from killing import finish, sweep, table, tracebacks, trained, wait_until_gone

from raypipe.storage.artifacts import Store
from raypipe.storage.inventory import damaged_files, inventory

KILLS = int(os.environ.get("RAYPIPE_CHAOS_KILLS", "50"))
pytestmark = pytest.mark.chaos


def all_whole(storage: Path) -> int:
    """How many artifacts stand; each file of each is looked at."""
    artifacts = inventory(Store(str(storage))).artifacts
    for artifact in artifacts.values():
        assert list(damaged_files(artifact)) == []
    return len(artifacts)


def starts(folder: Path) -> int:
    """How often a job below the folder has said its plan."""
    out = folder / "out"
    return out.read_text().count("distinct stage") if out.exists() else 0


def end(processes: list[psutil.Process]) -> None:
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def test_two_jobs_of_one_recipe_train_nothing_twice(recipe, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    jobs = {name: sweep(recipe, tmp_path / name, shared) for name in ("one", "two")}
    texts = {name: finish(job, tmp_path / name) for name, job in jobs.items()}
    for text in texts.values():
        assert tracebacks(text) == 0 and not re.search(r"\bagain\b", text.partition("tracked")[0])
    summaries = [json.loads((tmp_path / n / "summary.json").read_text()) for n in jobs]
    assert [s["failed"] for s in summaries] == [{}, {}]
    assert table(tmp_path / "one") == table(tmp_path / "two")
    made = [s["counts"]["stages"]["trained"] for s in summaries]
    attempts = list((shared / "storage" / "checkpoint").glob("*/attempt-*"))
    waits = [text.count("waiting for") for text in texts.values()]
    print(f"\ntrained by either job: {made}; waited: {waits}")
    assert sum(made) == len(attempts) == len(trained(shared)) == 4
    all_whole(shared / "storage")


def test_a_sweep_that_is_killed_again_and_again(recipe, tmp_path):
    whole = tmp_path / "whole"
    finish(sweep(recipe, whole), whole)
    rng, kills, lives, stood = random.Random(21), 0, 1, 0
    folder = tmp_path / "life-1"
    while kills < KILLS:
        process, before = sweep(recipe, folder), starts(folder)
        while process.poll() is None and starts(folder) == before:
            time.sleep(0.05)
        try:
            process.wait(timeout=20 * rng.random())  # from when Ray runs and the plan is known
        except subprocess.TimeoutExpired:
            family = psutil.Process(process.pid).children(recursive=True)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            if kills % 2:  # every other time as if the machine lost its power: all at once
                end(family)
            wait_until_gone(family, 3)  # Ray's agents may look for their driver for a minute
            end(family)
            kills += 1
        else:  # it got through in spite of all kills; the next are for a sweep from nothing
            assert process.returncode == 0 and table(folder) == table(whole)
            lives, folder, stood = lives + 1, tmp_path / f"life-{lives + 1}", 0
        now = all_whole(folder / "storage") if (folder / "storage").is_dir() else 0
        assert now >= stood  # nothing that stood is gone
        stood = now
    finish(sweep(recipe, folder), folder)
    assert table(folder) == table(whole)
    assert [tracebacks(out.read_text()) for out in tmp_path.glob("life-*/out")] == [0] * lives
    print(f"\n{KILLS} kills in {lives} sweeps; {stood} artifacts stood after the last")
