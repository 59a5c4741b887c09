"""kill -9 in the middle of scoring: the same command continues, and the bytes are the same.

python -m pytest -m chaos tests/chaos/test_kill_mining.py -s      prints what was scored twice
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from subprocess import Popen

import psutil
import pytest
from killing import begin_recipe, finish, kill_driver, random_teacher, ray_workers, until

from raypipe.interrupts import SENTENCE
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
    return random_teacher(tmp_path_factory.mktemp("teacher"))


def job(folder: Path, teacher: Path) -> Popen[str]:
    return begin_recipe("mine", folder, RECIPE, queries=QUERIES, teacher=teacher)


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory, teacher) -> dict:
    """The manifest of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    finish(job(folder, teacher), folder)
    return manifest(folder)


def test_a_killed_driver(tmp_path, teacher, whole):
    process = job(tmp_path, teacher)
    until(lambda: len(scored(tmp_path)) >= 4, process)
    kill_driver(process)
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
    workers = ray_workers(process, "MapWorker")
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
