"""Tracked runs on a sqlite store, as a job's Recorder leaves them."""

from __future__ import annotations

import getpass
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from raypipe import tracking
from raypipe.tracking.models import save_pyfunc
from raypipe.tracking.recorder import Recorder, send_left_behind
from raypipe.tracking.server import resolved
from raypipe.tracking.spool import spools

DEAD = "http://127.0.0.1:9"


class Tracked:
    """A recorder whose calls are seen at once, with the server's run ids."""

    def __init__(self, uri: str) -> None:
        self.recorder = Recorder(uri, "raypipe tests", program="sweep.py")
        self.uri = self.recorder.uri
        self.count = 0

    def __getattr__(self, verb: str):
        def call(run: str, *args, **more) -> str:
            getattr(self.recorder, verb)(run, *args, **more)
            assert self.recorder.drain() == (0, 0)
            return self.recorder.server_run(run)

        return call

    def start(self, name: str, kind: str, parent: str | None = None, **more) -> str:
        """Our id of a new run."""
        self.count += 1
        run = f"run-{self.count}"
        self.recorder.start(run, name, kind, parent, **more)
        assert self.recorder.drain() == (0, 0)
        return run

    def id(self, run: str) -> str:
        return self.recorder.server_run(run)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    """One store for the module: a new sqlite database takes MLflow two seconds."""
    folder = tmp_path_factory.mktemp("tracking")
    found = Tracked(f"sqlite:///{folder / 'sub' / 'mlflow.db'}")
    yield found
    found.recorder.close()


@pytest.fixture(scope="module")
def client(tracker):
    from mlflow import MlflowClient

    return MlflowClient(tracker.uri)


@pytest.fixture(scope="module")
def experiment_id(client, tracker) -> str:
    tracker.start("first", "job")
    return client.get_experiment_by_name("raypipe tests").experiment_id


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


def test_default_store_is_in_raypipes_home(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    assert tracking.default_uri() == f"sqlite:///{tmp_path}/home/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    assert tracking.default_uri() == DEAD


def test_a_relative_sqlite_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = (f"sqlite:///{tmp_path}/x.db", f"file://{tmp_path}/mlartifacts")
    assert resolved("sqlite:///x.db") == expected


def test_importing_tracking_does_not_import_mlflow():
    code = "import sys, raypipe.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A random BERT cross-encoder with a WordPiece tokenizer of a few words."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("checkpoint")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += ["ray", "data", "train", "how", "to", *"abcdef"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(
        vocab={word: i for i, word in enumerate(words)}, model_max_length=24
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        num_labels=1,
        initializer_range=1.0,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    torch.save({"optimizer": 1}, folder / "trainer.pt")
    return folder


def model_of(tracker, client, checkpoint: Path, name: str) -> str:
    """models:/ address of a checkpoint, logged under a run of its own."""
    run = tracker.start("model", "stage")
    run_id = tracker.log_model(run, checkpoint, name, None, {"nDCG@10": 0.5})
    (output,) = client.get_run(run_id).outputs.model_outputs
    return f"models:/{output.model_id}"


def test_logged_model_scores_like_the_checkpoint(tracker, client, checkpoint):
    import mlflow
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    uri = model_of(tracker, client, checkpoint, "reranker")
    pairs = pd.DataFrame(
        {
            "query": ["how to ray", "a", "train data"] * 13,
            "text": ["ray data " * 30, "b c", "to train a ray"] * 13,
            "doc_id": [str(i) for i in range(39)],
        },
        index=range(100, 139),
    )
    mlflow.set_tracking_uri(tracker.uri)
    found = mlflow.pyfunc.load_model(uri).predict(pairs)

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        expected = [
            model(
                **tokenizer(q, t, truncation=True, max_length=24, return_tensors="pt")
            ).logits.item()
            for q, t in zip(pairs["query"], pairs["text"], strict=True)
        ]
    assert len({round(score, 3) for score in expected}) == 3
    assert list(found.columns) == ["score"]
    assert found["score"].dtype == "float32"
    assert list(found.index) == list(pairs.index)
    assert found["score"].tolist() == pytest.approx(expected, abs=1e-5)
    without_ids = mlflow.pyfunc.load_model(uri).predict(pairs[["query", "text"]])
    assert without_ids.equals(found)


def test_logged_model_is_an_output_without_trainer_state(tracker, client, checkpoint):
    uri = model_of(tracker, client, checkpoint, "reranker")
    logged = client.get_logged_model(uri.removeprefix("models:/"))
    assert str(logged.status) == "READY"
    assert [(m.key, m.value) for m in logged.metrics] == [("nDCG_10", 0.5)]
    outputs = client.get_run(logged.source_run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [logged.model_id]
    folder = Path(logged.artifact_location.removeprefix("file://"))
    names = {path.name for path in folder.rglob("*")}
    assert {"model.safetensors", "tokenizer.json", "pyfunc.py"} <= names
    assert "trainer.pt" not in names
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_a_checkpoint_without_a_head_is_refused(tracker, client, checkpoint, tmp_path):
    import mlflow
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(checkpoint).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path)
    uri = model_of(tracker, client, tmp_path, "encoder")
    mlflow.set_tracking_uri(tracker.uri)
    with pytest.raises(ValueError, match=r"expected a trained cross-encoder.*classifier"):
        mlflow.pyfunc.load_model(uri)


def test_the_newest_registered_model_is_the_best(tracker, client, checkpoint):
    import mlflow

    for _ in range(2):
        run = tracker.start("model", "job")
        tracker.log_model(run, checkpoint, "reranker", "mine")
    version = client.get_model_version_by_alias("mine", "best")
    assert (int(version.version), version.run_id) == (2, tracker.id(run))
    mlflow.set_tracking_uri(tracker.uri)
    model = mlflow.pyfunc.load_model("models:/mine@best")
    assert len(model.predict(pd.DataFrame({"query": ["a"], "text": ["b"]}))) == 1


def test_a_checkpoint_becomes_a_model_without_a_server(checkpoint, tmp_path):
    import mlflow

    save_pyfunc(tmp_path / "model", checkpoint)
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert len(model.predict(pd.DataFrame({"query": ["a"], "text": ["b"]}))) == 1


def test_a_best_model_that_stays_the_best_is_not_copied(tracker, client, checkpoint):
    for digest in ("aa", "aa", "bb", "bb"):
        run = tracker.start("model", "job")
        tracker.log_model(run, checkpoint, "reranker", "ms marco/kd: 1", digest=digest)
        if digest == "aa":
            first = client.get_model_version_by_alias("ms marco_kd_ 1", "best")
    assert int(first.version) == 1 and first.tags["raypipe.digest"] == "aa"
    best = client.get_model_version_by_alias("ms marco_kd_ 1", "best")
    assert (int(best.version), best.tags["raypipe.digest"]) == (2, "bb")
    assert not client.get_run(tracker.id(run)).outputs.model_outputs


def test_a_best_model_without_its_alias_is_registered_again(tracker, client, checkpoint):
    """As after a crash between the two."""
    for _ in range(2):
        run = tracker.start("model", "job")
        tracker.log_model(run, checkpoint, "reranker", "lost", digest="aa")
        assert client.get_model_version_by_alias("lost", "best").run_id == tracker.id(run)
        client.delete_registered_model_alias("lost", "best")


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
