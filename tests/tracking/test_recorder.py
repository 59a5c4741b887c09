"""Tracked runs as a job's Recorder leaves them, whether the server is there or not."""

from __future__ import annotations

import errno
import getpass
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raypipe import tracking
from raypipe.tracking.client import resolved
from raypipe.tracking.orphans import send_left_behind
from raypipe.tracking.recorder import Recorder
from raypipe.tracking.spool import Spool, spools

DEAD = "http://127.0.0.1:9"


def test_job_trial_stage_nest(tracker, client, experiment_id):
    job = tracker.start("sweep", "job")
    trial = tracker.start("trial 0", "trial", parent=job, tags={"seed": 7, "note": ""})
    stage = tracker.id(tracker.start("distil", "stage", parent=trial))
    job, trial = tracker.id(job), tracker.id(trial)
    below = f"tags.mlflow.parentRunId = '{job}'"
    found = client.search_runs([experiment_id], below)
    assert [run.info.run_id for run in found] == [trial]
    tags = client.get_run(stage).data.tags
    assert tags["mlflow.parentRunId"] == trial
    assert tags["mlflow.runName"] == "distil"
    assert tags["raypipe.kind"] == "stage"
    assert client.get_run(trial).data.tags["seed"] == "7"
    assert "mlflow.parentRunId" not in client.get_run(job).data.tags
    for run in (job, trial, stage):  # the columns Source and User of MLflow's table
        tags = client.get_run(run).data.tags
        assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("sweep.py", "LOCAL")
        assert tags["mlflow.user"] == getpass.getuser()


def test_finish_sets_the_status(tracker, client):
    good, bad = tracker.start("good", "job"), tracker.start("bad", "job")
    good, bad = tracker.finish(good), tracker.finish(bad, "FAILED")
    assert client.get_run(good).info.status == "FINISHED"
    assert client.get_run(bad).info.status == "FAILED"


def test_commit_is_the_checkouts(tracker, client):
    root = Path(tracking.__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True)
    if head.returncode or not (root / ".git").exists():
        pytest.skip("not run from a git checkout")
    tags = client.get_run(tracker.id(tracker.start("commit", "job"))).data.tags
    assert tags["mlflow.source.git.commit"] == head.stdout.strip()


def test_a_dead_server_costs_nothing_and_gets_all_when_it_is_back(tmp_path, monkeypatch, caplog):
    """The address is written down with the records; here the server comes back under another."""
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))
    said: list[str] = []
    recorder = Recorder("http://me:secret@127.0.0.1:9", "dead", said.append)
    began = time.monotonic()
    recorder.start("job", "job", "job", params={"a": 1})
    recorder.log("job", {"loss": 1.0}, step=3)
    recorder.log_text("job", "text", "text.txt")
    recorder.finish("job")
    assert time.monotonic() - began < 1
    assert recorder.drain(patience=0.5) == (4, 0)
    recorder.close()
    assert len(said) == 1 and "does not answer" in said[0] and "secret" not in said[0]
    (folder,) = spools().iterdir()
    target = json.loads((folder / "target.json").read_text())
    assert target["uri"] == "http://***@127.0.0.1:9"
    uri, root = resolved(f"sqlite:///{tmp_path}/back.db")
    (folder / "target.json").write_text(json.dumps({**target, "uri": uri, "artifact_root": root}))
    assert send_left_behind(say=said.append) == 0
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("dead").experiment_id])
    assert run.data.params == {"a": "1"} and run.data.metrics == {"loss": 1.0}
    assert run.info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["text.txt"]
    assert list(spools().iterdir()) == []


def test_the_next_job_sends_what_a_killed_one_left(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))
    uri = f"sqlite:///{tmp_path}/m.db"
    code = f"""
import os
from raypipe.tracking.recorder import Recorder
recorder = Recorder({DEAD!r}, "killed")
recorder.start("job", "sweep", "job")
recorder.start("trial", "trial 1", "trial", "job")
recorder.log("trial", {{"loss": 2.0}})
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    assert subprocess.run([sys.executable, "-c", code], env=os.environ.copy()).returncode == -9
    (folder,) = spools().iterdir()
    root = (tmp_path / "files").as_uri()
    target = {"uri": uri, "experiment": "killed", "artifact_root": root}
    (folder / "target.json").write_text(json.dumps(target))
    following = Recorder(uri, "next")
    following.start("job", "job", "job")
    assert following.drain() == (0, 0)
    following.close()
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("killed").experiment_id])
    status = {run.info.run_name: run.info.status for run in runs}
    assert status == {"sweep": "KILLED", "trial 1": "KILLED"}
    (trial,) = [run for run in runs if run.info.run_name == "trial 1"]
    (job,) = [run for run in runs if run.info.run_name == "sweep"]
    assert trial.data.tags["mlflow.parentRunId"] == job.info.run_id
    assert trial.data.metrics == {"loss": 2.0}


def test_the_machine_is_watched(tracker, client):
    run = tracker.start("watched", "job")
    tracker.recorder.watch(run)
    deadline = time.monotonic() + 30
    while "system/cpu_utilization_percentage" not in client.get_run(tracker.id(run)).data.metrics:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    tracker.recorder._watch.stop()
    names = client.get_run(tracker.id(run)).data.metrics
    assert {"system/system_memory_usage_megabytes", "system/disk_usage_percentage"} <= names.keys()


def test_runs_below_a_job_end_before_it(tracker, client):
    job = tracker.start("job", "job")
    trial = tracker.start("pruned", "trial", parent=job)
    stage = tracker.start("distil", "stage", parent=trial)
    done = tracker.start("done", "trial", parent=job)
    other = tracker.start("other", "job")
    tracker.finish(done)
    tracker.finish_below(job)
    status = {run: client.get_run(tracker.id(run)).info.status for run in (trial, stage, done)}
    assert status == {trial: "KILLED", stage: "KILLED", done: "FINISHED"}
    assert client.get_run(tracker.id(job)).info.status == "RUNNING"
    assert client.get_run(tracker.id(other)).info.status == "RUNNING"


# --- what damaged spools and full disks do to others ---------------------------------------------


def dead_job(folder: Path, uri: str, name: str) -> Path:
    """The spool of a job that was killed, for this server."""
    root = (folder / "files").as_uri()
    target = {"uri": uri, "experiment": name, "artifact_root": root}
    spool = Spool.create(target, name=name)
    spool.append("start", "job", {"parent": None, "name": name, "params": {}, "tags": {}, "at": 1})
    spool.append("metrics", "job", {"points": [["loss", 2.0, 1, 1]]})
    spool.release()
    return spool.folder


def damage(folder: Path, kind: str) -> None:
    if kind == "target":
        (folder / "target.json").write_text("")
    elif kind == "version":
        (folder / "target.json").write_text('{"address": "http://there", "version": 9}')
    elif kind == "line":
        lines = (folder / "records.jsonl").read_text().splitlines(keepends=True)
        (folder / "records.jsonl").write_text("".join([lines[0], "{nonsense\n", *lines[1:]]))
    elif kind == "verb":
        with (folder / "records.jsonl").open("a") as out:
            out.write('{"verb": "unheard", "run": "job", "content": {"a": 1}}\n')
            out.write('{"verb": "start", "run": "other", "content": {"b": 1}}\n')


def test_send_tries_every_spool_whatever_the_others_are(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))
    uri = f"sqlite:///{tmp_path}/m.db"
    kinds = ("target", "version", "line", "verb", "whole")
    for kind in kinds:
        damage(dead_job(tmp_path, uri, kind), kind)
    dead_job(tmp_path, DEAD, "away")
    said: list[str] = []
    assert send_left_behind(0.5, said.append) == 3  # of the server that is away, and its end
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    arrived = {}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            arrived[experiment.name] = (run.data.metrics, run.info.status)
    assert arrived == {kind: ({"loss": 2.0}, "KILLED") for kind in ("line", "verb", "whole")}
    assert sorted(path.name for path in spools().iterdir()) == ["aside", "away"]
    aside = sorted(path.name for path in (spools() / "aside").iterdir())
    assert aside == ["line", "target", "version"]
    words = "\n".join(said)
    for part in ("target: its target.json is damaged", "version: its target.json is of another"):
        assert f"the records in {spools()}/{part.partition(':')[0]}" in words
    assert "line: all records sent, 1 of them refused" in words
    assert "verb: all records sent, 3 of them refused" in words  # with the end of the run
    assert "whole: all records sent" in words and "away: 3 records wait" in words


@pytest.mark.parametrize("kind", ["target", "version", "line"])
def test_a_damaged_spool_ends_no_later_job(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))
    damage(dead_job(tmp_path, DEAD, kind), kind)
    said: list[str] = []
    recorder = Recorder(DEAD, "next", said.append)
    recorder.start("job", "job", "job")
    assert recorder.drain(0.2)[0] == 1 + (4 if kind == "line" else 0)
    recorder.close()
    assert any("set aside" in line for line in said) == (kind != "line")


def test_a_full_disk_loses_records_that_are_counted_and_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))
    said: list[str] = []
    recorder = Recorder(DEAD, "full", said.append)
    whole = Spool._write
    failing = iter([False, True, True, False, True] + [False] * 9)

    def write(self, line: bytes) -> None:
        if next(failing):
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(self, line)

    monkeypatch.setattr(Spool, "_write", write)
    recorder.start("job", "job", "job")
    recorder.log("job", {"loss": 1.0})
    recorder.log_text("job", "text", "lost.txt")
    recorder.log_text("job", "text", "kept.txt")
    recorder.tag("job", {"a": 1})
    recorder.finish("job")
    assert (recorder.drain(0.2), recorder.lost) == ((3, 3), 3)
    records = list(recorder.spool.unsent())
    assert [record.verb for record in records] == ["start", "artifacts", "finish"]
    assert [[file.name for file in record.files] for record in records] == [[], ["kept.txt"], []]
    recorder.close()
    assert len([line for line in said if "could not be written down" in line]) == 1
