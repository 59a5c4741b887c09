"""Model folders that cannot be used are refused by `check`, and none is copied into the store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from families import folder_of
from safetensors.torch import load_file, save_file

from raypipe.config import ConfigError
from raypipe.inference.llm.local import TransformersEngine
from raypipe.models import soundness
from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 90868376\n"


@pytest.fixture
def folder(tiny_backbone, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    copy = tmp_path / "model"
    shutil.copytree(tiny_backbone, copy)
    return copy


def cut(name: str, size: int | None) -> Callable[[Path], None]:
    """Leaves the first bytes of a file; None is half of it."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2 if size is None else size])

    return change


def pointer(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(POINTER)

    return change


def longer(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"0")


def diverged(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.dense.bias"][3] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def infinite(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][3, 0] = -torch.inf
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def one_token_more(folder: Path) -> None:
    """A token that was added without resize_token_embeddings."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokenizer["added_tokens"].append({"id": size, "content": "[NEW]", "special": True})
    path.write_text(json.dumps(tokenizer))


def without_a_shard(folder: Path) -> None:
    shards = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(shards))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut("model.safetensors", None), r"expected [\d,]+ bytes in .*model\.safetensors, found"),
        (cut("model.safetensors", 0), r"expected a safetensors file, found 0 bytes"),
        (cut("model.safetensors", 100), r"expected a safetensors file, found 100 bytes"),
        (longer, r"expected [\d,]+ bytes in .*model\.safetensors, found"),
        (pointer("model.safetensors"), r"model\.safetensors is a Git LFS pointer.*git lfs pull"),
        (pointer("tokenizer.json"), r"tokenizer\.json is a Git LFS pointer"),
        (cut("tokenizer.json", None), r"expected JSON in .*tokenizer\.json, found \d+ bytes"),
        (cut("config.json", 0), r"expected JSON in .*config\.json, found 0 bytes"),
        (without_a_shard, r"index\.json names model-00002-of-00002\.safetensors, which is not in"),
        (diverged, r"infinity in 1 weights .*: encoder\.layer\.1\.output\.dense\.bias; the train"),
        (infinite, r"infinity in 1 weights .*: embeddings\.word_embeddings\.weight; the training"),
        (one_token_more, r"tokenizer has ids up to (\d+), the embedding rows for \1: .* resize"),
    ],
    ids=lambda case: getattr(case, "__name__", None),
)
def test_a_folder_that_cannot_be_used(folder, change, message, tmp_path):
    CrossEncoder(backbone=str(folder)).check()
    change(folder)
    for check in (
        CrossEncoder(backbone=str(folder)).check,
        TransformersEngine(model=str(folder)).check,
    ):
        with pytest.raises(ConfigError, match=f"backbone {folder}: .*{message}"):
            check()
    builder = Builder(Store(str(tmp_path / "storage")))
    with pytest.raises(ConfigError, match=message):
        builder.get(Backbone(str(folder)))
    assert builder.find(Backbone(str(folder))) is None


# --- files that are whole, and are not what their names say --------------------------------------


def writes(name: str, content: object) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(json.dumps(content)) and None


def edits(name: str, edit: Callable[[dict], object]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        edit(content)
        (folder / name).write_text(json.dumps(content))

    return change


def header(weight: str = "embeddings.word_embeddings.weight", **fields: object):
    """Changes what the header says of a weight; None deletes the field."""

    def change(folder: Path) -> None:
        content = (folder / "model.safetensors").read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        entries = json.loads(content[8:start])
        entry = entries[weight] | fields
        entries[weight] = {name: field for name, field in entry.items() if field is not None}
        text = json.dumps(entries).encode()
        (folder / "model.safetensors").write_bytes(
            len(text).to_bytes(8, "little") + text + content[start:]
        )

    return change


def a_shard_alone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def linked(name: str, to: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)

    return change


INDEX = "model.safetensors.index.json"
TOKENIZER = r"expected a tokenizer in .*tokenizer\.json, found \d+ bytes .*; copy it again"
SETTINGS = r"expected an object of settings by name in .*tokenizer_config\.json, found \d+ bytes"
FILES = r"expected names of files by weight in .*index\.json, found \d+ bytes"
WEIGHTS = r"expected weights in .*model\.safetensors, found \d+ bytes .*SafetensorError"
HEADER = r"expected a safetensors file, found \d+ bytes without its header"
LINK = r"expected a file, found a link that leads to none: .*"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((writes("tokenizer.json", content), TOKENIZER) for content in ([], {}, None)),
        (edits("tokenizer.json", lambda t: t.update(model=None)), TOKENIZER),
        (edits("tokenizer.json", lambda t: t["model"].update(vocab=None)), TOKENIZER),
        (edits("tokenizer.json", lambda t: t["model"]["vocab"].update(more="9")), TOKENIZER),
        (edits("tokenizer.json", lambda t: t.update(added_tokens=None)), TOKENIZER),
        (edits("tokenizer.json", lambda t: t["added_tokens"][0].pop("id")), TOKENIZER),
        *((writes("tokenizer_config.json", content), SETTINGS) for content in ([], None)),
        (writes("tokenizer_config.json", {"added_tokens_decoder": [1]}), SETTINGS),
        (writes("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}), SETTINGS),
        *((writes(INDEX, content), FILES) for content in ([], {}, {"weight_map": [1]})),
        (writes(INDEX, {"weight_map": {"a": 1}}), FILES),
        (header(shape=None), HEADER),
        (header(shape="ab"), HEADER),
        (header(shape=[1]), WEIGHTS),
        (header(dtype=None), WEIGHTS),
        (header(dtype="XX"), WEIGHTS),
        (header(data_offsets=[0, 4]), WEIGHTS),
        (header("__metadata__", format=3), WEIGHTS),
        (lambda folder: (folder / "a.json").write_text("[" * 100_000) and None, "expected JSON in"),
        (
            a_shard_alone,
            r"expected model\.safetensors\.index\.json in .* beside model-00001-of-000",
        ),
        (
            no_tokenizer,
            r"no tokenizer in .*: expected tokenizer\.json or .* found config\.json, mo",
        ),
        (
            lambda folder: (folder / "tokenizer.json").unlink(),
            r"no tokenizer in .*, tokenizer_conf",
        ),
        (linked("model.safetensors", "../../blobs/none"), LINK + r"model\.safetensors"),
        (linked("tokenizer.json", "../../blobs/none"), LINK + r"tokenizer\.json"),
        (linked("vocab.txt", "vocab.txt"), LINK + r"vocab\.txt"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(folder, change, message):
    change(folder)
    with pytest.raises(ConfigError, match=f"^backbone {folder}: .*{message}"):
        Backbone(str(folder)).check()


def test_bombs_in_a_models_files_are_refused(folder):
    """Levels that end Python's stack, and a header of more than any model has (a sparse file)."""
    config = folder / "config.json"
    whole = config.read_bytes()
    config.write_text("[" * 100_000)
    with pytest.raises(ConfigError, match=r"JSON.*config\.json"):
        Backbone(str(folder)).check()
    config.write_bytes(whole)
    with (folder / "model.safetensors").open("wb") as file:
        file.write((150_000_000).to_bytes(8, "little"))
        file.truncate(200_000_000)
    with pytest.raises(ConfigError, match="safetensors"):
        Backbone(str(folder)).check()


@pytest.mark.parametrize("name", ["x.model", "old.safetensors", "y.json"])
def test_a_folder_with_the_name_of_a_file_is_none(folder, name):
    (folder / name).mkdir()
    Backbone(str(folder)).check()


@pytest.mark.parametrize("family", ["roberta", "deberta_v3", "modernbert"])
def test_sound_families_pass(family):
    Backbone(str(folder_of(family))).check()


def test_without_a_tokenizer_json_the_tokenizer_is_loaded(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    lines = sorted(words, key=lambda word: words[word])
    (folder / "vocab.txt").write_text("\n".join(lines))
    Backbone(str(folder)).check()
    (folder / "vocab.txt").write_text("\n".join([*lines, "more"]))
    with pytest.raises(ConfigError, match=r"the tokenizer has ids up to .* embedding rows for"):
        Backbone(str(folder)).check()


def test_weights_are_read_once_per_machine(folder, monkeypatch):
    Backbone(str(folder)).check()
    reads = []
    monkeypatch.setattr("safetensors.safe_open", lambda *a: reads.append(a) or pytest.fail("read"))
    Backbone(str(folder)).check()
    assert not reads


def test_a_gguf_file_that_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    engine = TransformersEngine(model=str(tmp_path), gguf_file="m.gguf")
    for content, message in ((POINTER, "Git LFS pointer"), (b"<html>", "begins with b'<htm'")):
        (tmp_path / "m.gguf").write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            engine.check()
    (tmp_path / "m.gguf").write_bytes(b"GGUF and more")
    engine.check()


def test_the_embedding_is_found_in_every_family():
    for family in ("bert", "roberta", "electra", "deberta_v3", "modernbert"):
        folder = folder_of(family)
        header = soundness.header(folder / "model.safetensors", family)
        rows = json.loads((folder / "config.json").read_text())["vocab_size"]
        assert soundness._rows({"config.json": {}}, [header]) == rows, family
