"""A job tracked by a server of MLflow 2, which has no logged models.

The server's program is that of $RAYPIPE_MLFLOW2, or of an environment that the test makes with uv.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from servers import free_port, mlflow_server
from tracked_jobs import own_name

from raypipe.tracking.registered import local_checkpoint, version_of
from raypipe.tracking.spool import spools
from raypipe.tracking.stored_runs import TrackingStore

ROOT = Path(__file__).resolve().parents[2]
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
def tracked(old_mlflow, tmp_path_factory, write_recipe):
    """The address of such a server with a finished job, and what the job printed."""
    folder, port = tmp_path_factory.mktemp("old"), free_port()
    uri = f"http://127.0.0.1:{port}"
    given = [f"tracking={uri}", "tracking.registered_model=ranker", "tracking.owner=mei"]
    with mlflow_server(folder, port, f"sqlite:///{folder}/server.db", [old_mlflow]):
        command = [sys.executable, str(ROOT / "jobs" / "train.py"), str(write_recipe(folder))]
        out = folder / "out"
        with out.open("w") as sink:  # Ray's agents outlive the job and would hold a pipe
            done = subprocess.run([*command, *given, "reference=null"], stdout=sink, stderr=sink)
        assert done.returncode == 0, out.read_text()[-3000:]
        yield uri, out.read_text()


def test_runs_metrics_and_files_are_there(tracked):
    uri, printed = tracked
    assert "refused" not in printed and "wait in" not in printed
    store = TrackingStore(uri)
    job = store.job("tiny")
    runs = {own_name(store.client.get_run(one.run_id)): one for one in store.children(job)}
    assert runs.keys() >= {"BM25", "oracle", "contrastive -> distil"}
    for run in runs.values():
        assert run.status == "FINISHED" and run.tags["mlflow.user"] == "mei"
        assert store.client.get_run(run.run_id).data.metrics["nDCG_10"] >= 0
        names = {file.path for file in store.client.list_artifacts(run.run_id)}
        assert names == {"row.json", "per_query.csv", "run.txt"}
    stages = store.children(runs["contrastive -> distil"])
    assert [stage.name for stage in stages] == ["contrastive", "distil"]
    assert len(stages[1].history(("loss",))["loss"]) == 4
    assert "report.html" in job.tags["mlflow.note.content"]
    assert list(spools().glob("*")) == []


def test_the_model_is_files_of_the_run_and_a_classic_version(tracked):
    uri, printed = tracked
    store = TrackingStore(uri)
    job = store.job("tiny")
    names = {file.path for file in store.client.list_artifacts(job.run_id, "reranker")}
    assert "reranker/MLmodel" in names
    if "is not registered as the best model of ranker" in printed:  # as its first stage is better
        pytest.skip("the tiny model is below its first stage here, and so is not registered")
    version = store.client.get_model_version_by_alias("ranker", "best")
    assert version.run_id == job.run_id and version.source.endswith("/artifacts/reranker")
    assert version.tags["owner"] == "mei" and version.tags["raypipe.digest"]


def test_the_best_version_opens_again(tracked):
    import mlflow
    import pandas as pd

    uri, printed = tracked
    if "is not registered as the best model of ranker" in printed:
        pytest.skip("the tiny model is below its first stage here, and so is not registered")
    folder = local_checkpoint("models:/ranker@best", uri)
    assert (folder / "model.safetensors").is_file()
    assert version_of("models:/ranker@best", uri) == "1"
    mlflow.set_tracking_uri(uri)
    try:
        model = mlflow.pyfunc.load_model("models:/ranker@best")
    finally:
        mlflow.set_tracking_uri(None)
    pairs = pd.DataFrame({"query": ["a b", "a b"], "text": ["a b c", "d e f"]})
    assert len(model.predict(pairs)) == 2
