"""What a server, here a sqlite database, holds of what it was told."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from raypipe.tracking.client import default_uri, resolved
from raypipe.tracking.names import SEED_TAG, experiment_folder
from raypipe.tracking.recorder import Recorder
from raypipe.tracking.stored_runs import TrackingStore

DEAD = "http://127.0.0.1:9"


def test_default_store_is_in_raypipes_home(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    assert default_uri() == f"sqlite:///{tmp_path}/home/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    assert default_uri() == DEAD


def test_a_relative_sqlite_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = (f"sqlite:///{tmp_path}/x.db", f"file://{tmp_path}/mlartifacts")
    assert resolved("sqlite:///x.db") == expected


def test_params_beyond_one_batch_and_too_long(tracker, client):
    params = {f"stages.s{i}.lr": i / 7 for i in range(250)}
    run = tracker.start("params", "job", params={**params, "long": "x" * 7000, "none": None})
    stored = client.get_run(tracker.id(run)).data.params
    assert len(stored) == 252
    assert stored["stages.s249.lr"] == str(249 / 7)
    assert stored["long"] == "x" * 6000


def test_metrics_keep_their_steps(tracker, client):
    run = tracker.start("metrics", "stage")
    for step, value in [(10, 0.25), (20, 0.5)]:
        tracker.log(run, {"nDCG@10": value, "loss": math.nan}, step)
    run = tracker.id(run)
    history = client.get_metric_history(run, "nDCG_10")
    assert [(point.step, point.value) for point in history] == [(10, 0.25), (20, 0.5)]
    assert math.isnan(client.get_run(run).data.metrics["loss"])


def test_series_beyond_one_batch(tracker, client):
    run = tracker.start("series", "stage")
    curves = {name: [(i, float(i * k)) for i in range(700)] for k, name in enumerate("ab")}
    run = tracker.log_series(run, curves)
    for name, curve in curves.items():
        history = client.get_metric_history(run, name)
        assert sorted((p.step, p.value) for p in history) == curve


def test_dataset_is_an_input(tracker, client):
    run = tracker.start("data", "job")
    tracker.log_dataset(run, "msmarco", "msmarco-passage/train", "a" * 64, "training")
    run = tracker.log_dataset(run, "mine", "s3://bucket/mine", "b" * 16, "test")
    inputs = {i.dataset.name: i for i in client.get_run(run).inputs.dataset_inputs}
    assert inputs["msmarco"].dataset.digest == "a" * 36
    assert inputs["mine"].dataset.source_type == "s3"
    assert json.loads(inputs["mine"].dataset.source) == {"uri": "s3://bucket/mine"}
    assert [(t.key, t.value) for t in inputs["mine"].tags] == [("mlflow.data.context", "test")]


def test_artifacts_land_beside_the_database(tracker, client, tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "a.txt").write_text("a")
    (tmp_path / "run.trec").write_text("q Q0 d 1 1.0 x")
    run = tracker.start("artifacts", "job")
    tracker.log_artifact(run, tmp_path / "run.trec")
    tracker.log_artifact(run, tmp_path / "plots")
    run = tracker.log_text(run, "# Report", "report.md")
    assert {f.path for f in client.list_artifacts(run)} == {"run.trec", "plots", "report.md"}
    assert [f.path for f in client.list_artifacts(run, "plots")] == ["plots/a.txt"]
    root = Path(tracker.uri.removeprefix("sqlite:///")).parent / "mlartifacts"
    assert [p.read_text() for p in root.rglob("report.md")] == ["# Report"]


def test_a_run_whose_creation_was_not_confirmed_is_not_created_twice(tracker, client, monkeypatch):
    from mlflow import MlflowClient

    made = MlflowClient.create_run
    calls: list[str] = []

    def lost(self, *args, **more):
        found = made(self, *args, **more)
        calls.append(found.info.run_id)
        if len(calls) == 1:
            raise ConnectionError("the answer was lost")
        return found

    monkeypatch.setattr(MlflowClient, "create_run", lost)
    run = tracker.id(tracker.start("once", "job", params={"a": 1}))
    assert calls == [run] and client.get_run(run).data.params == {"a": "1"}


def test_importing_tracking_does_not_import_mlflow():
    code = "import sys, raypipe.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_new_experiment_is_shown_as_one_of_trainings(client, experiment_id):
    tags = client.get_experiment(experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_runs_of_two_jobs_have_titles_of_their_own_and_one_name(
    tracker, client, monkeypatch, tmp_path
):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))  # where no other test's records wait
    stamps = ("2026-11-28 04:31:05", "2026-11-29 04:31:05")
    titles, found = [], []
    for stamp in stamps:
        recorder = Recorder(tracker.uri, "raypipe tests", stamp=stamp, tags={"team": "search"})
        job, trial = f"job {stamp}", f"kd {stamp}"
        recorder.start(job, f"twice {stamps[0]}", "job")
        recorder.start(trial, "kd", "trial", job, tags={SEED_TAG: 2})
        assert recorder.drain() == (0, 0)
        titles.append(client.get_run(recorder.server_run(trial)).info.run_name)
        store = TrackingStore(str(tracker.uri))
        (read,) = store.children(store.job(recorder.server_run(job)))
        found.append((read.name, read.tags["team"]))
        recorder.close()
    assert titles == [f"kd, seed 2, {stamp}" for stamp in stamps]
    assert found == [("kd", "search")] * 2
    latest = store.job(f"twice {stamps[0]}")  # by its recipe, in an experiment of another name
    assert client.get_run(latest.run_id).info.run_name.endswith(stamps[1])


# --- experiments that were deleted in the UI ------------------------------------------------------


@pytest.fixture
def deletable(tracker):
    """A recorder on the store of all tests, with an experiment of its own; and what it says."""
    said: list[str] = []
    recorder = Recorder(tracker.uri, f"deleted {uuid.uuid4().hex}", said.append)
    yield recorder, said
    recorder.close()


def test_an_experiment_that_was_deleted_before_the_job_is_restored(deletable, client):
    recorder, said = deletable
    name = recorder.sender.server.experiment
    experiment = client.create_experiment(name)
    client.delete_experiment(experiment)
    recorder.start("job", "job", "job")
    assert recorder.drain() == (0, 0)
    assert client.get_run(recorder.server_run("job")).info.experiment_id == experiment
    assert client.get_experiment(experiment).lifecycle_stage == "active"
    assert said == [f"tracking: the experiment {name!r} had been deleted, and is restored"]


def test_an_experiment_that_is_deleted_meanwhile_loses_no_record(deletable, client):
    recorder, said = deletable
    recorder.start("job", "job", "job")
    assert recorder.drain() == (0, 0)
    experiment = recorder.sender.server.experiment_id
    client.delete_experiment(experiment)
    recorder.log("job", {"loss": 1.0})
    recorder.start("trial", "trial", "trial", "job")
    assert recorder.drain() == (0, 0)
    client.delete_experiment(experiment)
    recorder.start("other", "other", "trial", "job")
    recorder.finish("job")
    assert recorder.drain() == (0, 0)
    run = client.get_run(recorder.server_run("job"))
    assert run.data.metrics == {"loss": 1.0} and run.info.status == "FINISHED"
    assert len(client.search_runs([experiment])) == 3
    assert len(said) == 2 and all("restored" in line for line in said)


def test_an_experiment_that_is_gone_is_made_anew(deletable, client):
    recorder, said = deletable
    recorder.start("job", "job", "job")
    assert recorder.drain() == (0, 0)
    server = recorder.sender.server
    server.experiment_id = "999999999"  # as if it had been purged from the database
    recorder.start("trial", "trial", "trial", "job")
    assert recorder.drain() == (0, 0) and server.experiment_id != "999999999"
    assert client.get_run(recorder.server_run("trial")).info.experiment_id == server.experiment_id
    assert said == [f"tracking: the experiment {server.experiment!r} is gone, and is made anew"]


def test_a_run_whose_id_was_lost_is_found_on_the_server(deletable, client):
    """A full disk took no note of it, or power was lost."""
    recorder, _ = deletable
    recorder.start("job", "job", "job")
    assert recorder.drain() == (0, 0)
    known = dict(recorder.spool.runs)
    recorder.spool.runs.clear()
    recorder.spool.is_continued = True
    recorder.finish("job")
    recorder.start("job", "job", "job")
    assert recorder.drain() == (0, 0) and recorder.spool.runs == known
    assert len(client.search_runs([recorder.sender.server.experiment_id])) == 1


def test_text_that_no_database_holds_costs_no_record(tracker, client):
    half = "half \ud800"
    run = tracker.start(half * 99, "trial", params={"path": half}, tags={"raypipe.row": half})
    tracker.log_text(run, half, "run.a#b?%.trec")
    stored = client.get_run(tracker.id(run))
    assert stored.data.params["path"] == stored.data.tags["raypipe.row"] == "half ?"
    (file,) = client.list_artifacts(tracker.id(run))
    assert file.path.startswith("run.a_b__-") and file.path.endswith(".trec")


def test_the_files_of_an_experiment_lie_beside_those_of_others(tracker, client):
    recorder = Recorder(tracker.uri, "..")
    recorder.start("run-of-dots", "job", "job")
    assert recorder.drain() == (0, 0)
    recorder.close()
    folder = client.get_experiment_by_name("..").artifact_location
    assert folder.endswith(f"/mlartifacts/{experiment_folder('..')}") and "/.." not in folder
