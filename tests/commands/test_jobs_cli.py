"""What a user sees of the jobs: the exact plan, and one plain line for bad input."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from raypipe.commands import cost
from raypipe.commands.probe import Cost

JOBS = Path(__file__).resolve().parents[2] / "jobs"


PLANS = {
    "sweep.py": [
        "2 trials, 2 distinct stages instead of 3",
        "  contrastive: contrastive",
        "  contrastive -> distil: contrastive -> distil",
    ],
    "train.py": [
        "1 trial, 2 distinct stages",
        "  contrastive -> distil: contrastive -> distil",
    ],
}


@pytest.mark.parametrize("name", PLANS)
def test_a_dry_run_prints_the_plan_and_leaves_nothing(command, recipe, tmp_path, monkeypatch, name):
    """The sweep is started as a user does, and its probe, too, is a process of its own."""
    if name == "sweep.py":
        words = [sys.executable, str(JOBS / name), str(recipe), "--dry-run"]
        done = subprocess.run(words, capture_output=True, text=True)
    else:
        monkeypatch.setattr(cost, "probe", lambda *_: Cost(0.01, 0.005, 1 << 29))
        done = command(name, recipe, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    plan = PLANS[name]
    read = done.stdout.splitlines()
    assert read[0] == "data.train: 36 queries, 36 judgements"  # what is read stands before
    lines = read[read.index(plan[0]) :]
    assert lines[: len(plan)] == plan
    # 36 training queries in groups of 4; 16 steps of 6; 12 validation and test queries, depth 10;
    # the second stage validates its start, too
    to_do = lines[len(plan)]
    assert to_do.startswith("to do: 384 pairs to train on, 480 to validate on, ")
    assert re.fullmatch(
        r"a probe of 1 kind of stage says: (less|at most) .* minutes? .* \d\.\d GB per .*",
        lines[len(plan) + 1],
    )
    assert not (tmp_path / "mlflow.db").exists()
    assert not [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stages.distil.lrr=1", "stages.distil.lrr: unknown key 'lrr'; did you mean 'lr'?"),
        ("data.test={{dataset: beir/scifcat/test}}", "did you mean 'beir/scifact/test'?"),
        ("model.backbone={backbone}x", "did you mean 'tiny-bert'?"),
        ("candidates.depth=0", "candidates.depth: input should be greater than or equal to 1"),
        ("storage={recipe}/storage", "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    command, recipe, tiny_backbone, tmp_path, override, expected
):
    override = override.format(backbone=tiny_backbone, recipe=recipe)
    done = command("sweep.py", recipe, override, "--dry-run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not (tmp_path / "mlflow.db").exists()


def test_no_such_recipe(command, recipe):
    done = command("sweep.py", recipe.with_name("tyni.yaml"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: no recipe at ")
    assert done.stderr.endswith("did you mean 'tiny.yaml'?\n")
