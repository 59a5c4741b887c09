"""Checkpoints as MLflow models: they score as before, and the best one is registered."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from raypipe.config import ConfigError
from raypipe.runs.combined import interpolate
from raypipe.tables.scales import zscore
from raypipe.tracking.models import save_pyfunc, write_interpolation
from raypipe.tracking.registered import local_checkpoint, version_of


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


def test_a_registered_model_is_found_at_its_own_store(tracker, client, checkpoint):
    """Not at the process's: MLflow itself looks `models:/` up there."""
    run = tracker.start("model", "job")
    tracker.log_model(
        run, checkpoint, "reranker", "found", {}, "d", {"test": "nDCG@10 abc", "value": 0.61}
    )
    folder = local_checkpoint("models:/found@best", str(tracker.uri))
    assert (folder / "model.safetensors").is_file()
    assert folder == local_checkpoint("models:/found/1", str(tracker.uri))
    assert version_of("models:/found@best", str(tracker.uri)) == "1"
    version = client.get_model_version("found", "1")
    assert version.description.startswith("nDCG@10 0.610 on the job's test queries; ")
    for wrong in ("models:/found@other", "models:/found/7", "models:/found", "models:/lost@best"):
        with pytest.raises(ConfigError, match=f"^{wrong}: not found at sqlite"):
            local_checkpoint(wrong, str(tracker.uri))


def test_a_registry_that_denies_costs_the_job_nothing(tracker, client, checkpoint, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    def denied(self, name: str, *_: object, **__: object) -> None:
        raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    monkeypatch.setattr(MlflowClient, "create_registered_model", denied)
    said: list[str] = []
    monkeypatch.setattr(tracker.recorder.sender.server, "say", said.append)
    run = tracker.start("model", "job")
    run_id = tracker.log_model(run, checkpoint, "reranker", "forbidden", {"nDCG@10": 0.5}, "d")
    assert client.get_run(run_id).outputs.model_outputs  # the model is logged all the same
    assert len(said) == 1 and "denies a version of the registered model forbidden" in said[0]
    assert said[0].endswith("or name another with tracking.registered_model")


def test_the_newest_registered_model_is_the_best(tracker, client, checkpoint):
    import mlflow

    for _ in range(2):
        run = tracker.start("model", "job")
        tracker.log_model(run, checkpoint, "reranker", "mine")
    version = client.get_model_version_by_alias("mine", "best")
    assert (int(version.version), version.run_id) == (2, tracker.id(run))
    assert "raypipe rerank --model 'models:/mine@best'" in version.description
    mlflow.set_tracking_uri(tracker.uri)
    model = mlflow.pyfunc.load_model("models:/mine@best")
    assert len(model.predict(pd.DataFrame({"query": ["a"], "text": ["b"]}))) == 1


MIX = {"weight": 0.25, "scaling": "z", "columns": {"first_stage_score": 0.5, "cosine": 0.5}}


def test_a_mixed_model_takes_the_scores_of_its_first_stage(tracker, client, checkpoint, tmp_path):
    """As raypipe's own jobs mix them: z-scores over the documents of one query."""
    import mlflow

    config = (checkpoint / "config.json").read_text()
    run = tracker.start("model", "job")
    means = {"nDCG@10": 0.5}
    tracker.log_model(
        run, checkpoint, "reranker", "mixed", means, digest="m", interpolation=dict(MIX)
    )
    assert client.get_run(tracker.id(run)).outputs.model_outputs
    assert client.get_model_version_by_alias("mixed", "best").run_id == tracker.id(run)
    mlflow.set_tracking_uri(tracker.uri)
    model = mlflow.pyfunc.load_model("models:/mixed@best")
    assert (checkpoint / "config.json").read_text() == config  # which others link to
    pairs = pd.DataFrame(
        {
            "query": ["how to ray", "a", "how to ray", "a", "how to ray", "b"],
            "text": ["ray data", "b c", "to train a ray", "d", "train", "f"],
            "first_stage_score": [9.0, 1.5, 7.0, 4.0, 2.0, 3.0],
            "cosine": [0.2, 0.9, 0.4, 0.9, 0.9, 0.1],
        },
        index=range(10, 16),
    )
    found = model.predict(pairs)
    save_pyfunc(tmp_path / "alone", checkpoint)
    alone = mlflow.pyfunc.load_model(str(tmp_path / "alone")).predict(pairs[["query", "text"]])
    for query in ("how to ray", "a", "b"):
        rows = pairs["query"] == query
        first, cosine = (pairs[rows][name].to_numpy() for name in MIX["columns"])
        fused = 0.5 * zscore(first) + 0.5 * zscore(cosine)
        expected = interpolate(alone[rows]["score"].to_numpy(dtype="float64"), fused, 0.25)
        assert found[rows]["score"].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert found["score"].dtype == "float32" and list(found.index) == list(pairs.index)
    with pytest.raises(Exception, match="cosine"):
        model.predict(pairs.drop(columns="cosine"))
    with pytest.raises(ValueError, match="column cosine: expected finite numbers"):
        model.predict(pairs.assign(cosine=float("nan")))


def test_a_folder_says_what_its_model_is_mixed_with(checkpoint, tmp_path):
    import mlflow

    folder = shutil.copytree(checkpoint, tmp_path / "export")
    write_interpolation(folder / "config.json", {**MIX, "columns": {"first_stage_score": 1.0}})
    save_pyfunc(tmp_path / "model", folder)
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    names = model.metadata.get_input_schema().required_input_names()
    assert names == ["query", "text", "first_stage_score"]


def test_a_model_makes_texts_of_columns_as_in_training(checkpoint, tmp_path):
    import mlflow

    folder = shutil.copytree(checkpoint, tmp_path / "export")
    config = json.loads((folder / "config.json").read_text())
    config["raypipe"] = {"text": "{title} a {brand} b {no}"}
    (folder / "config.json").write_text(json.dumps(config))
    save_pyfunc(tmp_path / "model", folder)
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert model.metadata.get_input_schema().required_input_names() == ["query"]
    columns = pd.DataFrame(
        {"title": [" ray data", None], "brand": ["train", "c d"], "no": ["e", "f"]},
    )
    made = pd.DataFrame({"text": ["ray data a train b e", "a c d b f"]})
    found, expected = (model.predict(t.assign(query="how to")) for t in (columns, made))
    assert found["score"].tolist() == expected["score"].tolist()
    assert expected["score"].nunique() == 2
    with pytest.raises(Exception, match="expected a column text, or title, brand, no"):
        model.predict(columns.drop(columns="no").assign(query="how to"))


def test_a_checkpoint_becomes_a_model_without_a_server(checkpoint, tmp_path):
    import mlflow

    save_pyfunc(tmp_path / "model", checkpoint)
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert len(model.predict(pd.DataFrame({"query": ["a"], "text": ["b"]}))) == 1


def test_a_model_is_as_closed_as_its_process_wants(checkpoint, tmp_path):
    before = os.umask(0o077)
    try:
        save_pyfunc(tmp_path / "model", checkpoint)
    finally:
        os.umask(before)
    made = [path for path in (tmp_path / "model").rglob("*") if "checkpoint" not in path.parts]
    assert len(made) > 3 and not any(path.stat().st_mode & 0o077 for path in made)


def test_a_best_model_that_stays_the_best_is_not_copied(tracker, client, checkpoint):
    for digest in ("aa", "aa", "bb", "bb"):
        run = tracker.start("model", "job")
        means = {"nDCG@10": 0.5}
        tracker.log_model(run, checkpoint, "reranker", "ms marco/kd: 1", means, digest=digest)
        assert client.get_run(tracker.id(run)).data.metrics == {"nDCG_10": 0.5}
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


def test_a_worse_model_or_one_judged_elsewhere_does_not_take_the_alias(tracker, client, checkpoint):
    """As after a smoke run of a few steps, or on a few test queries."""
    holders = []
    contests = [("a", 0.5), ("a", 0.4), ("b", 0.9), ("a", 0.5), ("a", 0.6)]
    for number, (test, value) in enumerate(contests):
        run = tracker.start("model", "job")
        contest = {"test": f"nDCG@10 {test}", "value": value}
        tracker.log_model(run, checkpoint, "reranker", "held", digest=f"{number}", contest=contest)
        assert tracker.id(run)  # waits for the server
        holders.append(int(client.get_model_version_by_alias("held", "best").version))
    assert holders == [1, 1, 1, 4, 5]
    assert len(client.search_model_versions("name = 'held'")) == 5
    held = client.get_model_version_by_alias("held", "best")
    assert held.tags["raypipe.test"] == "nDCG@10 a" and held.tags["raypipe.value"] == "0.6"
