"""A job tracked by a server of MLflow 2, which has no logged models.

The server's program is that of $RAYPIPE_MLFLOW2, or of an environment that the test makes with uv.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from drawn_ranker import drawn_ranker
from servers import free_port, mlflow_server

from raypipe.tracking.recorder import Recorder
from raypipe.tracking.registered import local_checkpoint, version_of
from raypipe.tracking.spool import spools
from raypipe.tracking.stored_runs import TrackingStore

ROOT = Path(__file__).resolve().parents[2]
BEGAN = "2026-11-28 04:31:05"
PROGRAM = "RAYPIPE_MLFLOW2"
WITH = ("SQLAlchemy<2.1", "setuptools<81")
"""What MLflow 2 needs and does not say."""
pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def old_mlflow(tmp_path_factory) -> str:
    """The program `mlflow` of version 2."""
    if named := os.environ.get(PROGRAM):
        return named
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        pytest.skip(f"needs ${PROGRAM}, the program mlflow of a version before 3, or uv to get it")
    folder = tmp_path_factory.mktemp("mlflow2")
    made = subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder])
    install = [uv, "pip", "install", "-q", "--python", folder, "mlflow>=2.17,<3", *WITH]
    if made.returncode or subprocess.run(install).returncode:
        pytest.skip(f"needs ${PROGRAM}, or a package index that has mlflow<3")
    return str(folder / "bin" / "mlflow")


@pytest.fixture(scope="module")
def server(old_mlflow, tmp_path_factory) -> str:
    """The address of such a server."""
    folder, port = tmp_path_factory.mktemp("old"), free_port()
    with mlflow_server(folder, port, f"sqlite:///{folder}/server.db", [old_mlflow]):
        yield f"http://127.0.0.1:{port}"


def test_models_are_files_of_runs_and_classic_versions(server, tiny_backbone, tmp_path):
    """As a job's writer leaves them; a version that is worse stands beside the best one."""
    said: list[str] = []
    folder = drawn_ranker(tmp_path / "checkpoint", tiny_backbone, {})
    recorder = Recorder(server, "team/search", said.append, stamp=BEGAN, tags={"owner": "mei"})
    for number, value in enumerate((0.6, 0.5)):
        job = f"job {number}"
        contest = {"test": "nDCG@10 abc", "value": value}
        recorder.start(job, "tiny", "job")
        recorder.log_dataset(job, "tiny", "beir:/data/tiny", "abc", "test")
        recorder.log_model(
            job, folder, "reranker", "team ranker", {"nDCG@10": value}, f"d{number}", contest
        )
        recorder.finish(job)
    assert recorder.drain(120) == (0, 0)
    runs = [recorder.server_run(f"job {number}") for number in range(2)]
    recorder.close()
    assert len(said) == 1 and "`best` of team ranker stays with version 1" in said[0]
    store = TrackingStore(server)
    for run, value in zip(runs, (0.6, 0.5), strict=True):
        found = store.client.get_run(run)
        assert found.info.status == "FINISHED" and found.info.run_name == f"tiny, {BEGAN}"
        assert found.data.metrics == {"nDCG_10": value}
        assert json.loads(found.data.tags["mlflow.log-model.history"])[0]["run_id"] == run
        assert [file.path for file in store.client.list_artifacts(run)] == ["reranker"]
    version = store.client.get_model_version_by_alias("team ranker", "best")
    assert (version.run_id, version.tags["owner"]) == (runs[0], "mei")
    assert version.source.endswith(f"{runs[0]}/artifacts/reranker")
    _opens("team ranker", server)


def _opens(name: str, server: str) -> None:
    """The best version opens again: its checkpoint for raypipe, its pyfunc for MLflow."""
    import mlflow
    import pandas as pd

    folder = local_checkpoint(f"models:/{name}@best", server)
    assert (folder / "model.safetensors").is_file()
    assert version_of(f"models:/{name}@best", server) == "1"
    mlflow.set_tracking_uri(server)
    try:
        model = mlflow.pyfunc.load_model(f"models:/{name}@best")
    finally:
        mlflow.set_tracking_uri(None)
    pairs = pd.DataFrame({"query": ["a b", "a b"], "text": ["a b c", "d e f"]})
    assert len(model.predict(pairs)) == 2


def test_a_job_is_tracked_whole(server, recipe, tmp_path):
    given = [f"tracking={server}", "tracking.registered_model=ranker", "tracking.owner=mei"]
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), str(recipe), "reference=null"]
    out = tmp_path / "out"
    with out.open("w") as sink:  # Ray's agents outlive the job and would hold a pipe
        done = subprocess.run([*command, *given], stdout=sink, stderr=sink)
    printed = out.read_text()
    assert done.returncode == 0, printed[-3000:]
    assert "refused" not in printed and "wait in" not in printed
    assert list(spools().glob("*")) == []
    store = TrackingStore(server)
    job = store.job("tiny")
    runs = {one.name: one for one in store.children(job)}
    assert runs.keys() >= {"BM25", "oracle", "contrastive -> distil"}
    for run in runs.values():
        assert run.status == "FINISHED" and run.tags["mlflow.user"] == "mei"
        assert store.client.get_run(run.run_id).data.metrics["nDCG_10"] >= 0
        names = {file.path for file in store.client.list_artifacts(run.run_id)}
        assert names == {"row.json", "per_query.csv", "run.txt"}
    stages = store.children(runs["contrastive -> distil"])
    assert sorted(stage.name for stage in stages) == ["contrastive", "distil"]
    assert "report.html" in job.tags["mlflow.note.content"]
    names = {file.path for file in store.client.list_artifacts(job.run_id)}
    assert names >= {"reranker", "report.html", "report.md", "recipe.yaml", "lock.txt"}
    if "is not registered as the best model of ranker" not in printed:  # below its first stage
        version = store.client.get_model_version_by_alias("ranker", "best")
        assert version.run_id == job.run_id and version.tags["owner"] == "mei"
        _opens("ranker", server)
