"""The jobs' command line, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raypipe.config import load, parse_yaml, validate
from raypipe.experiment import Experiment

JOBS = Path(__file__).resolve().parent.parent / "jobs"


def job(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(JOBS / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["sweep.py", "train.py"])
def test_jobs_are_executable(name):
    path = JOBS / name
    assert path.read_text().startswith("#!/usr/bin/env python\n")
    assert os.access(path, os.X_OK)


def test_help():
    done = job("sweep.py", "--help")
    assert done.returncode == 0 and done.stderr == ""
    for word in ("RECIPE", "key=value", "--print-config", "--dry-run", "--summary", "default.yaml"):
        assert word in done.stdout


def test_print_config_loads_back(recipe, tmp_path):
    done = job("sweep.py", recipe, "stages.distil.lr=2e-5", "seed=7", "--print-config")
    assert (done.returncode, done.stderr) == (0, "")
    given = load(Experiment, recipe, ["stages.distil.lr=2e-5", "seed=7"])
    assert validate(Experiment, parse_yaml(done.stdout), "the output") == given
    assert given.stages["distil"].lr == 2e-5 and given.seed == 7


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        (
            "sweep.py",
            [
                "2 trials, 2 distinct stages instead of 3 (0 already trained)",
                "  contrastive: contrastive",
                "  contrastive -> distil: contrastive -> distil",
            ],
        ),
        (
            "train.py",
            [
                "1 trial, 2 distinct stages instead of 2 (0 already trained)",
                "  contrastive -> distil: contrastive -> distil",
            ],
        ),
    ],
)
def test_dry_run_prints_the_plan_and_leaves_nothing(recipe, tmp_path, name, plan):
    done = job(name, recipe, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == plan
    assert not (tmp_path / "mlflow.db").exists()
    assert not [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "stages.contrastive.lrr=1",
            "contrastive.lrr: unknown key 'lrr'; did you mean 'lr'?",
        ),
        ("seeed=2", "seeed: unknown key 'seeed'; did you mean 'seed'?"),
        ("stages.distill.lr=1e-5", "there is no 'distill' here; did you mean 'distil'?"),
        ("data.test.dataset=beir/scifcat/test", "did you mean 'beir/scifact/test'?"),
        ("data.test.split=tset", "did you mean 'test'?"),
        ("model.backbone={backbone}x", "did you mean 'tiny-bert'?"),
        ("candidates.depth=0", "candidates.depth: input should be greater than or equal to 1"),
        ("stages.contrastive.loss.type=infonec", "did you mean 'infonce'?"),
        ("reference=contrastve", "did you mean 'contrastive'?"),
        ("evaluation.measures=[nDGC@10]", "did you mean 'nDCG'?"),
        ("storage={recipe}/storage", "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_code_2(recipe, tiny_backbone, tmp_path, override, expected):
    override = override.format(backbone=tiny_backbone, recipe=recipe)
    done = job("sweep.py", recipe, override, "--dry-run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not (tmp_path / "mlflow.db").exists()


def test_no_such_recipe(recipe):
    done = job("sweep.py", recipe.with_name("tyni.yaml"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: no recipe at ")
    assert done.stderr.endswith("did you mean 'tiny.yaml'?\n")


@pytest.mark.ray
def test_summary(recipe, tmp_path):
    """`train.py` starts a Ray of its own, trains one stage and writes what programs read."""
    target = tmp_path / "summary.json"
    done = job("train.py", recipe, "order=contrastive", "--summary", target)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    summary = json.loads(target.read_text())
    assert summary.keys() == {"tracked_run", "artifacts", "counts", "rows", "failed"}
    assert summary["failed"] == {}
    assert summary["counts"]["stages"] == {"distinct": 1, "trained": 1}
    assert summary["counts"]["groups"]["groups"] == 36
    kinds = {row["name"]: row["kind"] for row in summary["rows"]}
    assert kinds == {
        "BM25": "first_stage",
        "teacher: bi-encoder + first stage": "teacher",
        "oracle": "oracle",
        "contrastive": "trained",
    }
    chain = {"collection", "queries", "candidates", "negatives", "teacher", "groups", "tokens"}
    assert chain | {"checkpoint", "run", "metrics"} <= summary["artifacts"].keys()
    for kind, folder in summary["artifacts"].items():
        manifest = json.loads((Path(folder) / "manifest.json").read_text())
        assert manifest["kind"] == kind
    table = done.stdout
    assert all(name in table for name in kinds)
    from mlflow import MlflowClient

    run = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(summary["tracked_run"])
    assert run.info.status == "FINISHED"
