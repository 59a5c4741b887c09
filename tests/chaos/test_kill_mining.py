"""kill -9 in the middle of scoring: the same command continues, and the bytes are the same.

python -m pytest -m chaos tests/chaos/test_kill_mining.py -s      prints what was scored twice
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from killing import MINILM, ROOT, finish, until, wait_until_gone

from raypipe.interrupts import SENTENCE
from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder, save
from raypipe.teachers.cross_encoder import CHUNK

QUERIES = 640  # ten chunks of 64
ACTORS = int(psutil.cpu_count() or 1)

RECIPE = """\
name: chaos
data:
  train: {{dataset: "pydoc:json,logging,unittest,email,asyncio,numpy,pandas", split: train,
           limit: {queries}}}
  validation: {{dataset: "pydoc:json,logging,unittest,email,asyncio,numpy,pandas",
                split: validation, limit: 16}}
  test: {{dataset: "pydoc:json,logging,unittest,email,asyncio,numpy,pandas", split: test,
          limit: 16}}
candidates: {{type: bm25, depth: 20}}
groups: {{negatives: {{type: random_window, count: 5, low: 1, high: 20}}}}
teacher: {{type: cross_encoder, backbone: "{teacher}",
           truncation: {{type: longest_first, max_length: 64}}}}
model: {{backbone: "{minilm}"}}
stages: {{distil: {{loss: {{type: margin_mse}}}}}}
evaluation: {{depth: 10, validation_depth: 5}}
storage: {storage}
"""

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """MiniLM with a random head: scores mean nothing here, bytes do."""
    folder = tmp_path_factory.mktemp("teacher")
    start = Backbone(MINILM).folder
    assert start is not None
    model = CrossEncoder(backbone=MINILM).load(start, 5, training=False, device="cpu")
    save(model, folder, start, 64)
    return folder


def job(folder: Path, teacher: Path) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    recipe = folder / "chaos.yaml"
    recipe.write_text(
        RECIPE.format(queries=QUERIES, teacher=teacher, minilm=MINILM, storage=folder / "storage")
    )
    return subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / "mine.py"), str(recipe)],
        env=os.environ | {"RAYPIPE_HOME": str(folder / "home")},
        # shells that start a job in the background have it ignore Ctrl-C, and so do their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=(folder / "out").open("a"),  # not a pipe: Ray's agents outlive the job by minutes
        stderr=subprocess.STDOUT,
        text=True,
    )


def scored(folder: Path) -> list[Path]:
    """Finished chunks of the training teacher, committed or not; the largest set counts."""
    found: dict[Path, list[Path]] = {}
    for path in (folder / "storage" / "teacher").glob("cross_encoder-*/attempt-*/part-*.parquet"):
        found.setdefault(path.parent, []).append(path)
    return max(found.values(), key=len, default=[])


def manifest(folder: Path) -> dict:
    found = [
        json.loads(path.read_text())
        for path in (folder / "storage" / "teacher").glob("cross_encoder-*/manifest.json")
    ]
    return max(found, key=lambda one: len(one["files"]))


def workers_of(process: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    found = []
    for one in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if name in " ".join(one.cmdline()):
                found.append(one)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory, teacher) -> dict:
    """The manifest of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    finish(job(folder, teacher), folder)
    return manifest(folder)


def test_a_killed_driver(tmp_path, teacher, whole):
    process = job(tmp_path, teacher)
    until(lambda: len(scored(tmp_path)) >= 4, process)
    workers = workers_of(process, "ray::")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until_gone(workers)  # Ray ends them when their driver is gone
    there = len(scored(tmp_path))
    out = finish(job(tmp_path, teacher), tmp_path)
    again = manifest(tmp_path)
    chunks = len(whole["files"])
    assert f"{there} of {chunks} chunks were there" in out
    assert again["files"] == whole["files"]  # names, sizes and checksums
    assert again["counts"]["chunks_taken_over"] == there
    twice = again["counts"].get("chunks_begun_again", 0)
    assert twice <= ACTORS  # what they had in hand
    print(
        f"\ndriver killed with {there} of {chunks} chunks finished: scoring was begun "
        f"{chunks + twice} times in all, {twice} chunks of {CHUNK} queries twice"
    )


def test_a_killed_worker(tmp_path, teacher, whole):
    process = job(tmp_path, teacher)
    until(lambda: len(scored(tmp_path)) >= 3, process)
    workers = workers_of(process, "MapWorker")
    assert workers, "no scoring actor was found"
    max(workers, key=lambda one: one.cpu_times().user).kill()  # one that scores, not one that waits
    finish(process, tmp_path)
    again = manifest(tmp_path)
    assert again["files"] == whole["files"]
    assert "chunks_taken_over" not in again["counts"]  # the job itself went on
    twice = again["counts"].get("chunks_begun_again", 0)
    assert twice <= 1
    print(f"\nworker killed: {twice} of {len(whole['files'])} chunks were begun twice")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_driver_says_so_and_the_same_command_goes_on(tmp_path, teacher, number):
    process = job(tmp_path, teacher)
    until(lambda: len(scored(tmp_path)) >= 2, process)
    os.kill(process.pid, number)
    assert process.wait(timeout=300) == 128 + number
    out = (tmp_path / "out").read_text()
    assert out.count(SENTENCE) == 1 and "Traceback" not in out
    there = len(scored(tmp_path))
    again = finish(job(tmp_path, teacher), tmp_path)
    assert there >= 2 and f"{there} of 10 chunks were there" in again
