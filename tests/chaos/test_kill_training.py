"""kill -9 in the middle of a stage: it goes on, and the weights are the same to the last bit.

python -m pytest -m chaos tests/chaos/test_kill_training.py -s      prints what was trained twice
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from subprocess import Popen

import pytest
from killing import begin_recipe, finish, kill_driver, ray_workers, until

RECIPE = """\
name: chaos
data:
  train: {{dataset: "pydoc:json,logging,unittest,email", split: train, limit: 200}}
  validation: {{dataset: "pydoc:json,logging,unittest,email", split: validation, limit: 8}}
  test: {{dataset: "pydoc:json,logging,unittest,email", split: test, limit: 8}}
candidates: {{type: bm25, depth: 20}}
groups: {{negatives: {{type: random_window, count: 5, low: 1, high: 20}}}}
model: {{backbone: "{minilm}", keep_layers: 2, hidden_dropout: 0.1}}
truncation: {{type: longest_first, max_length: 64}}
stages:
  contrastive: {{loss: {{type: infonce}}, steps: 80, validations: 4, checkpoint_every: 10}}
evaluation: {{depth: 10, validation_depth: 5}}
resources: {{workers: 2, cpus_per_worker: 1}}
storage: {storage}
tracking: sqlite:///{storage}.db
"""

pytestmark = pytest.mark.chaos


def job(folder: Path) -> Popen[str]:
    return begin_recipe("train", folder, RECIPE)


def saved(folder: Path) -> int:
    """The step of the newest complete checkpoint, 0 if there is none."""
    found = (folder / "storage" / "checkpoint").glob("*/attempt-*/.training/step-*/manifest.json")
    return max((int(path.parent.name.split("-")[1]) for path in found), default=0)


def trained(folder: Path) -> tuple[str, dict, list[str]]:
    """(checksum of the weights, what the trainer noted, names left beside the artifact)."""
    (manifest,) = (folder / "storage" / "checkpoint").glob("*/manifest.json")
    attempt = manifest.parent / json.loads(manifest.read_text())["attempt"]
    facts = json.loads((attempt / "trainer.json").read_text())
    weights = hashlib.sha256((attempt / "model.safetensors").read_bytes()).hexdigest()
    others = [p.name for p in manifest.parent.iterdir() if p.is_dir() and p != attempt]
    return weights, facts, others


def reached(folder: Path) -> int:
    """The last step that was reported."""
    steps = re.findall(r"contrastive: step (\d+)/80", (folder / "out").read_text())
    return max(map(int, steps), default=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[str, dict, list[str]]:
    folder = tmp_path_factory.mktemp("whole")
    finish(job(folder), folder)
    return trained(folder)


def test_a_killed_driver(tmp_path, whole):
    process = job(tmp_path)
    until(lambda: saved(tmp_path) >= 20, process)
    kill_driver(process)
    far, there = reached(tmp_path), saved(tmp_path)
    finish(job(tmp_path), tmp_path)
    weights, facts, others = trained(tmp_path)
    assert facts["resumed_from"] == [there] and there >= 20
    assert weights == whole[0] and whole[1]["resumed_from"] == []
    assert facts["best"] == whole[1]["best"] and facts["pairs"] == whole[1]["pairs"]
    assert others == []
    print(f"\ndriver killed at step {far} of 80 or later, continued after step {there}")


def test_a_killed_worker(tmp_path, whole):
    process = job(tmp_path)
    until(lambda: saved(tmp_path) >= 20, process)
    workers = ray_workers(process, "RayTrainWorker")
    assert len(workers) == 2
    workers[1].kill()
    finish(process, tmp_path)
    weights, facts, others = trained(tmp_path)
    assert len(facts["resumed_from"]) == 1 and facts["resumed_from"][0] >= 20
    assert weights == whole[0] and others == []
    print(f"\nworker killed: continued after step {facts['resumed_from'][0]} of 80")
