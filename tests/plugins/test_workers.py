"""A pickle in another process, as a worker reads it: with the package, without it, with another."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from own_packages import SQUARED, work_in, write

from raypipe.plugins.packages import ALLOW
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load

ROOT = Path(__file__).resolve().parents[2]
MEASURE = """
from raypipe.evaluation.own_measures import OwnMeasure
class Half(OwnMeasure):
    def per_query(self, ranked, relevance, positive_relevance):
        return 0.5
"""
READ = """
import pickle, sys
from pathlib import Path
loss, measures = pickle.loads(Path(sys.argv[1]).read_bytes())
import torch
from raypipe.evaluation.measures import parse_measures
ones = torch.ones(1, 2)
print(loss(3 * ones, ones, ones.bool()).item(), parse_measures(measures)[0].type)
"""


@pytest.fixture
def pickled(recipe, tmp_path, monkeypatch) -> Path:
    """A loss and the names of measures, as steps hold them, pickled by a job in `tmp_path`/job."""
    write(tmp_path / "job", SQUARED | {"my_package/half.py": MEASURE})
    work_in(tmp_path / "job", monkeypatch)
    half = "my_package.half:Half"
    experiment = load(
        Experiment,
        recipe,
        [
            "stages.contrastive.loss.type=my_package.own:Squared",
            f"evaluation.measures=[{half}]",
            f"evaluation.selection={half}",
        ],
    )
    path = tmp_path / "pickle"
    path.write_bytes(
        pickle.dumps((experiment.stages["contrastive"].loss, experiment.trained().measures))
    )
    return path


def worker(path: Path, *more: Path) -> subprocess.CompletedProcess[str]:
    """A process in another folder, which nobody told of the package."""
    env = {k: v for k, v in os.environ.items() if k != ALLOW}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *map(str, more)])
    (elsewhere := path.parent / "elsewhere").mkdir(exist_ok=True)
    command = [sys.executable, "-c", READ, str(path)]
    return subprocess.run(command, capture_output=True, text=True, cwd=elsewhere, env=env)


def test_a_worker_of_a_local_job_finds_what_lies_in_the_job_s_folder(pickled):
    done = worker(pickled)
    assert (done.returncode, done.stdout) == (0, "8.0 my_package.half:Half\n"), done.stderr


def test_a_worker_elsewhere_has_an_installation(pickled, tmp_path):
    shutil.move(tmp_path / "job", tmp_path / "site")
    os.makedirs(tmp_path / "job")
    done = worker(pickled, tmp_path / "site")
    assert (done.returncode, done.stdout) == (0, "8.0 my_package.half:Half\n"), done.stderr


def test_a_worker_without_the_package_says_so(pickled, tmp_path):
    shutil.rmtree(tmp_path / "job")
    last = worker(pickled).stderr.strip().splitlines()[-1]
    assert "ConfigError: worker on " in last and "there is no package my_package" in last
    assert "bring my_package to every node" in last and "--working-dir" in last


def test_a_worker_with_other_bytes_says_so(pickled, tmp_path):
    write(tmp_path / "job", {"my_package/helpers.py": "def squares(*_): return 0\n"})
    last = worker(pickled).stderr.strip().splitlines()[-1]
    assert "expected the code that the job was planned with, found other bytes in" in last
    assert "run the command again" in last
