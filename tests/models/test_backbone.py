"""Backbones: where they are found, what is refused before work, what makes their digest."""

from __future__ import annotations

import shutil
import types

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from raypipe.config import ConfigError
from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder


def test_a_package_that_is_not_installed():
    with pytest.raises(ConfigError, match="no_such_model is not installed; pip install no-such-"):
        Backbone("package:no_such_model/model").spec()


def test_a_directory_that_is_not_there_suggests_its_neighbour(tiny_backbone):
    with pytest.raises(ConfigError, match=r"no directory .*tiny-bort; did you mean 'tiny-bert'\?"):
        Backbone(str(tiny_backbone.with_name("tiny-bort"))).spec()


def test_a_directory_that_is_no_model(tmp_path):
    with pytest.raises(ConfigError, match=r"has no config\.json, so it is not a model"):
        Backbone(str(tmp_path)).spec()


def test_pickled_weights_are_refused(tmp_path, tiny_backbone):
    shutil.copy(tiny_backbone / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(ConfigError, match=r"no \.safetensors file; .* pickles and are not read"):
        Backbone(str(tmp_path)).spec()


def test_a_hub_that_does_not_answer(monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", offline)
    with pytest.raises(ConfigError, match=r"some/model: no such directory.*\(ConnectionError\)"):
        Backbone("some/model").spec()


def test_a_hub_model_is_its_resolved_revision(monkeypatch):
    asked = []

    def answer(self, name, **kwargs):
        asked.append(name)
        return types.SimpleNamespace(sha="c0ffee")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", answer)
    backbone = Backbone("some/model")
    assert backbone.spec() == {"hub": "some/model", "revision": "c0ffee"} == backbone.spec()
    assert asked == ["some/model"]  # a revision that moves within a job would split its artifacts


def test_identity_is_content(tiny_backbone, tmp_path):
    shutil.copytree(tiny_backbone, tmp_path / "copy")
    here, copy = Backbone(str(tiny_backbone)), Backbone(str(tmp_path / "copy"))
    assert here.digest == copy.digest and here.tokenizer_identity == copy.tokenizer_identity
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"other weights")
    other = Backbone(str(tmp_path / "copy"))
    assert other.digest != here.digest and other.tokenizer_identity == here.tokenizer_identity
    (tmp_path / "copy" / "tokenizer.json").write_text("{}")
    assert Backbone(str(tmp_path / "copy")).tokenizer_identity != here.tokenizer_identity


BASE = {"config.json": '{"model_type": "deberta-v2"}', "tokenizer_config.json": "{}"}


@pytest.mark.parametrize(
    "difference",
    [
        {"spm.model": "other pieces"},
        {"sentencepiece.bpe.model": "pieces"},
        {"bpe.codes": "codes"},
        {"source.spm": "pieces"},
        {"emoji.json": "{}"},
        {"vocab.json": "{}"},
        {"vocab.bpe": "merges"},
        {"config.json": '{"model_type": "xlm-roberta"}'},
        {"config.json": '{"model_type": "deberta-v2", "tokenizer_class": "BertTokenizer"}'},
    ],
    ids=str,
)
def test_without_a_tokenizer_json_vocabulary_and_class_decide(difference, tmp_path):
    """DeBERTa-v3 and mDeBERTa, whose folders differ in spm.model alone, shared one token store."""

    def identity(name: str, **files: str) -> str:
        (tmp_path / name).mkdir()
        for file, text in {**BASE, "model.safetensors": name, "spm.model": "a", **files}.items():
            (tmp_path / name / file).write_text(text)
        return Backbone(str(tmp_path / name)).tokenizer_identity

    base = identity("base")
    same = {"config.json": '{"model_type": "deberta-v2", "num_labels": 1}', "modules.json": "[]"}
    assert identity("tuned", **same) == base
    assert identity("other", **difference) != base
    copied = Backbone(str(tmp_path / "other")).spec()["files"]
    assert difference.keys() <= copied.keys(), "what decides is copied, too"
    (tmp_path / "other" / "tokenizer.json").write_text("{}")
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    with_json = [Backbone(str(tmp_path / name)).tokenizer_identity for name in ("base", "other")]
    named = next(iter(difference)).startswith(("vocab", "tokenizer"))
    assert (with_json[0] != with_json[1]) == named, "beside a tokenizer.json as it always was"


def test_has_scorer(tiny_backbone, tmp_path):
    from transformers import AutoModelForSequenceClassification

    assert not Backbone(str(tiny_backbone)).has_scorer
    for labels in (1, 2):
        folder = tmp_path / str(labels)
        model = AutoModelForSequenceClassification.from_pretrained(tiny_backbone, num_labels=labels)
        model.save_pretrained(folder)
        assert Backbone(str(folder)).has_scorer == (labels == 1)


def test_a_name_that_is_nowhere_says_what_was_tried(monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", offline)
    expected = r"some/model: no such directory, and the Hugging Face hub did not .*ConnectionError"
    with pytest.raises(ConfigError, match=expected):
        CrossEncoder(backbone="some/model").check()


def test_a_hub_model_of_pickles_alone_is_refused_before_it_is_fetched(monkeypatch):
    names = ["config.json", "pytorch_model.bin", "spm.model"]
    info = types.SimpleNamespace(
        sha="c0ffee", siblings=[types.SimpleNamespace(rfilename=name) for name in names]
    )
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: info)
    with pytest.raises(ConfigError, match=r"found pytorch_model\.bin; other formats are pickles"):
        CrossEncoder(backbone="microsoft/deberta-v3-base").check()
    info.siblings[1].rfilename = "model.safetensors"
    Backbone("microsoft/deberta-v3-base").check()
    del info.siblings[2]
    with pytest.raises(ConfigError, match=r"no tokenizer in the hub's repository: expected token"):
        Backbone("microsoft/deberta-v3-base").check()


@pytest.mark.parametrize(
    "error", [ConnectionError("reset"), LocalEntryNotFoundError("no net"), OSError(28, "No space")]
)
def test_a_hub_that_breaks_off_is_a_sentence(monkeypatch, tmp_path, error):
    info = types.SimpleNamespace(sha="c0ffee")
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: info)

    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    with pytest.raises(ConfigError, match=rf"some/model: .*{type(error).__name__}: .*; connect to"):
        Builder(Store(str(tmp_path))).get(Backbone("some/model"))


def test_a_hub_model_without_a_tokenizer_is_not_copied(monkeypatch, tmp_path, tiny_backbone):
    info = types.SimpleNamespace(sha="c0ffee")
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: info)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_backbone / name, tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: str(tmp_path))
    with pytest.raises(ConfigError, match="some/model: no tokenizer in"):
        Builder(Store(str(tmp_path / "storage"))).get(Backbone("some/model"))


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00" * 40])
def test_a_damaged_config_is_no_traceback(tiny_backbone, tmp_path, content):
    """A plan reads it before `check` does."""
    shutil.copytree(tiny_backbone, tmp_path / "copy")
    (tmp_path / "copy" / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"expected a JSON object in .*copy/config\.json, found"):
        Backbone(str(tmp_path / "copy")).published_config()
