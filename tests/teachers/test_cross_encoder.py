"""A cross-encoder as teacher: a model without a trained head is refused, wherever it comes from."""

from __future__ import annotations

import shutil
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from raypipe.config import ConfigError
from raypipe.inference.lists import Lists
from raypipe.inference.truncation import LongestFirst
from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder, save
from raypipe.storage.artifacts import Artifact, Store
from raypipe.teachers.cross_encoder import CrossEncoderTeacher

REFUSED = "expected a sequence classifier with one label, found {}; a fresh head would teach noise"
CUT = LongestFirst(max_length=48)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory, tiny_backbone) -> Path:
    folder = tmp_path_factory.mktemp("scorer")
    save(CrossEncoder(backbone="").load(tiny_backbone, 1, training=False, device="cpu"), folder,
         tiny_backbone, 48)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def two_labels(tmp_path_factory, tiny_backbone) -> Path:
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path_factory.mktemp("two")
    with torch.random.fork_rng():
        model = AutoModelForSequenceClassification.from_pretrained(tiny_backbone, num_labels=2)
    model.save_pretrained(folder)
    shutil.copy(tiny_backbone / "tokenizer.json", folder)
    return folder


@pytest.fixture
def hub(monkeypatch):
    """The hub's files of one model, by name; returns what was fetched."""

    def publish(folder: Path) -> list[tuple[str, str, str]]:
        fetched: list[tuple[str, str, str]] = []

        def download(name: str, file: str, revision: str) -> str:
            fetched.append((name, file, revision))
            return str(folder / file)

        names = [types.SimpleNamespace(rfilename=path.name) for path in folder.glob("*")]
        info = types.SimpleNamespace(sha="c0ffee", siblings=names)
        monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: info)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)

        def snapshot(name: str, revision: str, allow_patterns: list[str]) -> str:
            assert not any("safetensors" in pattern for pattern in allow_patterns)
            fetched.append((name, "all but weights", revision))
            return str(folder)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        return fetched

    return publish


def test_a_local_model(tiny_backbone, scorer, two_labels):
    CrossEncoderTeacher(backbone=str(scorer), truncation=CUT).check()
    with pytest.raises(ConfigError, match=REFUSED.format("BertModel")):
        CrossEncoderTeacher(backbone=str(tiny_backbone)).check()
    several = "found BertForSequenceClassification with 2 labels; set `label` to the number of the"
    with pytest.raises(ConfigError, match=several):
        CrossEncoderTeacher(backbone=str(two_labels)).check()


def test_a_hub_model(hub, tiny_backbone, scorer):
    fetched = hub(scorer)
    CrossEncoderTeacher(backbone="some/reranker", truncation=CUT).check()
    asked = [("some/reranker", what, "c0ffee") for what in ("config.json", "all but weights")]
    assert fetched == asked
    hub(tiny_backbone)
    with pytest.raises(ConfigError, match=REFUSED.format("BertModel")):
        CrossEncoderTeacher(backbone="google-bert/bert-base-uncased").check()


def test_a_hub_model_without_a_config(hub, tmp_path):
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).touch()
    hub(tmp_path)
    with pytest.raises(ConfigError, match=r"gave no config\.json \(FileNotFoundError\)"):
        CrossEncoderTeacher(backbone="some/vectors").check()


def test_positions_for_fewer_tokens_than_the_teacher_reads(scorer):
    """What a dry run says; without it, the embedding's index error came after candidates."""
    message = (
        r"^teacher\.truncation\.max_length: pairs of up to 512 tokens, .* positions for 128; lower"
    )
    with pytest.raises(ConfigError, match=message):
        CrossEncoderTeacher(backbone=str(scorer)).check()


def test_the_step_refuses_before_an_actor_starts(tmp_path, tiny_backbone):
    """What stands in the store may be older than the check."""
    attempt = tmp_path / "backbone" / "x" / "attempt-1"
    attempt.mkdir(parents=True)
    (attempt / "config.json").write_bytes((tiny_backbone / "config.json").read_bytes())
    weights = Artifact(Store(str(tmp_path)), "backbone/x", {"attempt": "attempt-1"})
    lists: Any = Lists(*[Backbone(str(tiny_backbone))] * 4, 5)  # type: ignore[arg-type]
    step = CrossEncoderTeacher(backbone="some/encoder").scores(lists, "fp32")
    attempted: Any = types.SimpleNamespace(inputs={"weights": weights})
    with pytest.raises(ConfigError, match="some/encoder: " + REFUSED.format("BertModel")):
        step.run(attempted, None)  # type: ignore[arg-type]
