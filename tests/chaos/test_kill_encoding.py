"""kill -9 while a corpus is encoded, of an actor and then of the driver: the same command encodes
no finished chunk again, and its vectors and lists are the same bytes.

python -m pytest -m chaos tests/chaos/test_kill_encoding.py -s      prints what was begun twice
"""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import Popen

import psutil
import pytest
from killing import begin_recipe, finish, kill_driver, ray_workers, until

ACTORS = int(psutil.cpu_count() or 1)
RECIPE = """\
name: chaos
data:
  train: {{dataset: pydoc, split: train, limit: 64}}
  validation: {{dataset: pydoc, split: validation, limit: 16}}
  test: {{dataset: pydoc, split: test, limit: 16}}
candidates: {{type: dense, backbone: "{minilm}", max_length: 16, depth: 20}}
groups: {{negatives: {{type: random_window, count: 5, low: 1, high: 20}}}}
model: {{type: bi_encoder, backbone: "{minilm}", max_length: 16}}
stages: {{contrastive: {{loss: {{type: infonce}}}}}}
evaluation: {{depth: 10, validation_depth: 5}}
precision: fp32
storage: {storage}
"""
"""Some 20,000 documents, five chunks or more of vectors."""

pytestmark = pytest.mark.chaos


def job(folder: Path) -> Popen[str]:
    return begin_recipe("mine", folder, RECIPE)


def encoded(folder: Path) -> list[Path]:
    """Finished chunks of the documents' vectors, committed or not; the largest set counts."""
    found: dict[Path, list[Path]] = {}
    for path in (folder / "storage" / "embeddings").glob("*/attempt-*/part-*.arrow"):
        found.setdefault(path.parent, []).append(path)
    return max(found.values(), key=len, default=[])


def manifests(folder: Path, kind: str) -> dict[str, dict]:
    found = (folder / "storage" / kind).glob("*/manifest.json")
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def test_a_killed_actor_and_then_a_killed_driver(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(job(whole), whole)
    process = job(killed)
    until(lambda: len(encoded(killed)) >= 1, process)
    actors = ray_workers(process, "MapWorker")
    assert actors, "no encoding actor was found"
    max(actors, key=lambda one: one.cpu_times().user).kill()
    until(lambda: len(encoded(killed)) >= 2, process)  # the job goes on without it
    kill_driver(process)
    there = encoded(killed)
    out = finish(job(killed), killed)
    for kind in ("embeddings", "candidates", "groups"):
        one, two = manifests(whole, kind), manifests(killed, kind)
        assert one.keys() == two.keys() and one
        for name in one:  # names, sizes and checksums
            assert one[name]["files"] == two[name]["files"], name
    documents = max(manifests(killed, "embeddings").values(), key=lambda m: len(m["files"]))
    chunks = len(documents["files"])
    assert chunks >= 5 and f"{len(there)} of {chunks} chunks were there" in out
    assert documents["counts"]["chunks_taken_over"] == len(there)
    twice = documents["counts"].get("chunks_begun_again", 0)
    assert twice <= 2 * ACTORS  # what the actor, and then the driver's actors, had in hand
    print(f"\n{len(there)} of {chunks} chunks stood at the end; {twice} were begun twice")
