"""A sweep tracked by a real `mlflow server` on PostgreSQL, which is away in the middle of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers import end_group, free_port, mlflow_server, postgresql

from raypipe.tracking.spool import spools
from raypipe.tracking.stored_runs import TrackingStore

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    pytest.importorskip("psycopg2", reason="needs the Python package psycopg2")
    with postgresql(tmp_path_factory.mktemp("postgres")) as address:
        yield address


def job(recipe: Path, out: Path, *arguments: str) -> subprocess.Popen:
    """jobs/sweep.py in a process of its own; Ray's agents outlive it and hold a pipe."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / "sweep.py"), str(recipe), *arguments],
        stdout=out.open("w"),
        stderr=subprocess.STDOUT,
        env=os.environ.copy(),
    )


def wait_for(text: str, out: Path, process: subprocess.Popen, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while text not in out.read_text():
        assert process.poll() is None, out.read_text()[-3000:]
        assert time.monotonic() < deadline, out.read_text()[-3000:]
        time.sleep(0.2)


def tracked(uri: str) -> dict[str, tuple[str, int]]:
    """Name and status of every run below the latest job, with the number of its metrics."""
    store = TrackingStore(uri)
    job = store.job("tiny")
    found = {}
    for child in store.children(job):
        metrics = store.client.get_run(child.run_id).data.metrics
        found[child.name] = (child.status, len(metrics))
    return found


def test_a_sweep_on_postgresql(database, recipe, tmp_path):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with mlflow_server(tmp_path, port, database):
        process = job(recipe, tmp_path / "out", f"tracking={uri}")
        assert process.wait(600) == 0, (tmp_path / "out").read_text()[-3000:]
        runs = tracked(uri)
        assert runs.keys() >= {"BM25", "oracle", "contrastive", "contrastive -> distil"}
        assert all(status == "FINISHED" and metrics > 0 for status, metrics in runs.values())
        store = TrackingStore(uri)
        experiment = store.client.get_run(store.job("tiny").run_id).info.experiment_id
        (logged,) = store.client.search_logged_models([experiment])
        versions = store.client.search_model_versions("name = 'tiny'")  # none below the first stage
        assert [v.source for v in versions] == [f"models:/{logged.model_id}"] * len(versions)
        page = subprocess.run(
            [sys.executable, str(ROOT / "jobs" / "report.py"), "tiny", "--tracking", uri],
            capture_output=True,
            text=True,
        )
        assert page.returncode == 0 and "contrastive -> distil" in page.stdout
    assert list(spools().glob("*")) == []


def test_a_server_that_goes_away_costs_nothing(database, recipe, tmp_path):
    """Stopped when the first stage begins, back when the second one ends."""
    port = free_port()
    uri, out = f"http://127.0.0.1:{port}", tmp_path / "out"
    given = [f"tracking={uri}", "seed=5", "name=away"]
    with mlflow_server(tmp_path, port, database) as server:
        process = job(recipe, out, *given)
        wait_for("checkpoint tiny-bert-contrastive", out, process)
        end_group(server)
        wait_for("distil: step 4/4", out, process)
        waiting = [p for p in spools().iterdir() if (p / "records.jsonl").is_file()]
        (spool,) = waiting
        written = len((spool / "records.jsonl").read_text().splitlines())
        sent = spool / "sent"  # of a busy machine's job nothing may have been sent yet
        assert (int(sent.read_text()) if sent.is_file() else 0) < written
    with mlflow_server(tmp_path, port, database):
        code = process.wait(600)
        text = out.read_text()
        assert code == 0, text[-3000:]
        # the job may have ended before the server was back: then the next one sends the rest
        if re.search(r"tracking: \d+ records wait", text):
            send = [sys.executable, "-m", "raypipe.tracking", "--send"]
            assert subprocess.run(send, env=os.environ.copy()).returncode == 0
        store = TrackingStore(uri)
        found = store.job("away")
        assert found.status == "FINISHED"
        names = [run.name for run in store.children(found)]
        assert sorted(names) == sorted(set(names))  # nothing arrived twice
        (trial,) = [run for run in store.children(found) if run.name == "contrastive -> distil"]
        stages = {run.name: run for run in store.children(trial)}
        curve = stages["distil"].history(("loss",))["loss"]
        assert [step for step, _ in curve] == [1, 2, 3, 4]
        assert trial.status == "FINISHED"
    assert list(spools().glob("*")) == []
