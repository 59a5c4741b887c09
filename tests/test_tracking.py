"""Tracked runs on a sqlite store, and on a server that is not there."""

from __future__ import annotations

import json
import logging
import math
import pickle
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from raypipe import tracking
from raypipe.tracking import Tracker, measure_name, metric_name

DEAD = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def tracker(tmp_path_factory) -> Tracker:
    """One store for the module: a new sqlite database takes MLflow two seconds."""
    folder = tmp_path_factory.mktemp("tracking")
    return Tracker.open(f"sqlite:///{folder / 'sub' / 'mlflow.db'}", "raypipe tests")


@pytest.fixture(scope="module")
def client(tracker):
    from mlflow import MlflowClient

    return MlflowClient(tracker.uri)


@pytest.fixture(autouse=True)
def nothing_lost(tracker):
    before = tracker.lost
    yield
    assert tracker.lost == before


@pytest.mark.parametrize(
    ("measure", "metric"),
    [
        ("nDCG@10", "nDCG_10"),
        ("RR@10", "RR_10"),
        ("AP", "AP"),
        ("Judged@10", "Judged_10"),
        ("alpha_nDCG@10", "alpha_nDCG_10"),
        ("nERR_IA@20", "nERR_IA_20"),
        ("IPrec@0.1", "IPrec_0.1"),
        ("AP(rel=2)", "AP.rel-2"),
        ("RR(rel=2)@10", "RR.rel-2_10"),
        ("R(rel=2)@1000", "R.rel-2_1000"),
        ("RBP(p=0.95)", "RBP.p-0.95"),
        ("RBP(rel=2,p=0.95)", "RBP.rel-2.p-0.95"),
        ("RBP(p=0.95,rel=2)@100", "RBP.p-0.95.rel-2_100"),
        ("nDCG(judged_only=True)@10", "nDCG.judged_only-True_10"),
        ("nDCG(dcg='exp-log2')@10", "nDCG.dcg-exp-log2_10"),
        ("loss", "loss"),
        ("validation/nDCG@10", "validation/nDCG_10"),
        ("stages.distil.lr", "stages.distil.lr"),
    ],
)
def test_metric_name_round_trip(measure, metric):
    assert metric_name(measure) == metric
    assert measure_name(metric) == measure


@pytest.mark.parametrize("name", ["odd (", "a#b%c", "/abs", "../up", "a//b", "x[0]", "é:b", "."])
def test_any_other_name_is_made_legal(name, tracker, client):
    run = tracker.start("names", "job", params={name: 1})
    tracker.log(run, {name: 1.0})
    assert len(client.get_run(run).data.metrics) == len(client.get_run(run).data.params) == 1


def test_job_trial_stage_nest(tracker, client):
    job = tracker.start("sweep", "job")
    trial = tracker.start("trial 0", "trial", parent=job, tags={"seed": 7, "note": ""})
    stage = tracker.start("distil", "stage", parent=trial)
    below = f"tags.mlflow.parentRunId = '{job}'"
    found = client.search_runs([tracker.experiment_id], below)
    assert [run.info.run_id for run in found] == [trial]
    tags = client.get_run(stage).data.tags
    assert tags["mlflow.parentRunId"] == trial
    assert tags["mlflow.runName"] == "distil"
    assert tags["raypipe.kind"] == "stage"
    assert client.get_run(trial).data.tags["seed"] == "7"
    assert "mlflow.parentRunId" not in client.get_run(job).data.tags


def test_finish_sets_the_status(tracker, client):
    good, bad = tracker.start("good", "job"), tracker.start("bad", "job")
    tracker.finish(good)
    tracker.finish(bad, "FAILED")
    assert client.get_run(good).info.status == "FINISHED"
    assert client.get_run(bad).info.status == "FAILED"


def test_commit_is_the_checkouts(tracker, client):
    root = Path(tracking.__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True)
    if head.returncode or not (root / ".git").exists():
        pytest.skip("not run from a git checkout")
    tags = client.get_run(tracker.start("commit", "job")).data.tags
    assert tags["mlflow.source.git.commit"] == head.stdout.strip()


def test_params_beyond_one_batch_and_too_long(tracker, client):
    params = {f"stages.s{i}.lr": i / 7 for i in range(250)}
    run = tracker.start("params", "job", params={**params, "long": "x" * 7000, "none": None})
    stored = client.get_run(run).data.params
    assert len(stored) == 252
    assert stored["stages.s249.lr"] == str(249 / 7)
    assert stored["long"] == "x" * 6000


def test_params_whose_keys_become_equal_are_both_kept(tracker, client):
    run = tracker.start("equal", "job", params={"a@b": 1, "a#b": 2})
    assert client.get_run(run).data.params == {"a_b": "1", "a_b_2": "2"}


def test_metrics_keep_their_steps(tracker, client):
    run = tracker.start("metrics", "stage")
    for step, value in [(10, 0.25), (20, 0.5)]:
        tracker.log(run, {"nDCG@10": value, "loss": math.nan}, step)
    history = client.get_metric_history(run, "nDCG_10")
    assert [(point.step, point.value) for point in history] == [(10, 0.25), (20, 0.5)]
    assert math.isnan(client.get_run(run).data.metrics["loss"])


def test_series_beyond_one_batch(tracker, client):
    run = tracker.start("series", "stage")
    curves = {name: [(i, float(i * k)) for i in range(700)] for k, name in enumerate("ab")}
    tracker.log_series(run, curves)
    for name, curve in curves.items():
        history = client.get_metric_history(run, name)
        assert sorted((p.step, p.value) for p in history) == curve


def test_dataset_is_an_input(tracker, client):
    run = tracker.start("data", "job")
    tracker.log_dataset(run, "msmarco", "msmarco-passage/train", "a" * 64, "training")
    tracker.log_dataset(run, "mine", "s3://bucket/mine", "b" * 16, "test")
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
    tracker.log_text(run, "# Report", "report.md")
    assert {f.path for f in client.list_artifacts(run)} == {"run.trec", "plots", "report.md"}
    assert [f.path for f in client.list_artifacts(run, "plots")] == ["plots/a.txt"]
    root = Path(tracker.uri.removeprefix("sqlite:///")).parent / "mlartifacts"
    assert [p.read_text() for p in root.rglob("report.md")] == ["# Report"]


def test_a_pickled_copy_writes_to_the_same_run(tracker, client):
    run = tracker.start("pickled", "trial")
    copy = pickle.loads(pickle.dumps(tracker))
    copy.log(run, {"loss": 2.0})
    assert copy == tracker
    assert client.get_run(run).data.metrics == {"loss": 2.0}


def test_default_store_is_in_raypipes_home(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    assert tracking.default_uri() == f"sqlite:///{tmp_path}/home/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    assert tracking.default_uri() == DEAD


def test_a_relative_sqlite_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = (f"sqlite:///{tmp_path}/x.db", f"file://{tmp_path}/mlartifacts")
    assert tracking._store("sqlite:///x.db") == expected


def test_importing_tracking_does_not_import_mlflow():
    code = "import sys, raypipe.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def _use_everything(tracker: Tracker, run: str, folder: Path) -> None:
    tracker.log(run, {"loss": 1.0}, step=3)
    tracker.log_series(run, {"loss": [(1, 2.0)]})
    tracker.log_artifact(run, folder)
    tracker.log_text(run, "text", "text.txt")
    tracker.log_dataset(run, "name", "source", "digest", "training")
    assert tracker.log_model(run, folder, "model", {"nDCG@10": 0.5}) == ""
    tracker.finish(run)


def test_a_dead_server_costs_one_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="raypipe"):
        tracker = Tracker.open(DEAD, "dead")
        run = tracker.start("job", "job", params={"a": 1})
        _use_everything(tracker, run, tmp_path)
    assert run == ""
    assert tracker.lost == 10
    (record,) = (r for r in caplog.records if r.name == "raypipe.tracking")
    assert DEAD in record.message
    assert "not recorded: experiment 'dead'" in record.message


def test_a_server_that_dies_during_a_run_costs_records_only(tmp_path, caplog):
    tracker = Tracker(DEAD, "dying", experiment_id="1")
    with caplog.at_level(logging.WARNING, logger="raypipe"):
        _use_everything(tracker, "0" * 32, tmp_path)
    assert tracker.lost == 7
    assert len([r for r in caplog.records if r.name == "raypipe.tracking"]) == 1


def test_a_password_never_reaches_the_warning(caplog):
    with caplog.at_level(logging.WARNING, logger="raypipe"):
        Tracker.open("http://me:secret@127.0.0.1:9", "x")
    assert "not recorded" in caplog.text
    assert "secret" not in "".join(r.message for r in caplog.records if "raypipe" in r.name)


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


def test_logged_model_scores_like_the_checkpoint(tracker, client, checkpoint):
    import mlflow
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run = tracker.start("model", "stage")
    uri = tracker.log_model(run, checkpoint, "reranker", {"nDCG@10": 0.5})
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
    run = tracker.start("model", "stage")
    uri = tracker.log_model(run, checkpoint, "reranker", {"nDCG@10": 0.5})
    logged = client.get_logged_model(uri.removeprefix("models:/"))
    assert str(logged.status) == "READY"
    assert [(m.key, m.value) for m in logged.metrics] == [("nDCG_10", 0.5)]
    outputs = client.get_run(run).outputs.model_outputs
    assert [output.model_id for output in outputs] == [logged.model_id]
    folder = Path(logged.artifact_location.removeprefix("file://"))
    names = {path.name for path in folder.rglob("*")}
    assert {"model.safetensors", "tokenizer.json", "tracking_model.py"} <= names
    assert "trainer.pt" not in names
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_a_checkpoint_without_a_head_is_refused(tracker, checkpoint, tmp_path):
    import mlflow
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(checkpoint).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path)
    uri = tracker.log_model(tracker.start("no head", "stage"), tmp_path, "encoder")
    mlflow.set_tracking_uri(tracker.uri)
    with pytest.raises(ValueError, match=r"expected a trained cross-encoder.*classifier"):
        mlflow.pyfunc.load_model(uri)
