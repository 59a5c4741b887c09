"""What stands in a storage is told from one listing, also where it is damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from buckets import store_on
from number_steps import Number
from stores import leave_attempt, three

from raypipe.config import ConfigError
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.storage.inventory import (
    TUNE,
    TUNE_OVER,
    damaged_files,
    folder_at,
    inventory,
    place_at,
    size_text,
)
from raypipe.storage.manifest import MANIFEST


@pytest.fixture(params=["disk", "bucket"])
def store(tmp_path, monkeypatch, request) -> Store:
    """On disk, or on a file system that is not this machine's; files lie in tmp_path / storage."""
    return store_on(request.param, monkeypatch, tmp_path / "storage")


@pytest.fixture
def folder(store, tmp_path) -> Path:
    return tmp_path / "storage"


def test_artifacts_attempts_and_folders_of_tune(store, folder):
    seven, total, eight = three(store)
    leave_attempt(folder / "sums" / "sum-0123456789abcdef", "attempt-a", 30)
    leave_attempt(folder / eight.step_path, "attempt-b", 20)
    (folder / TUNE / "job-1234" / "trial").mkdir(parents=True)
    (folder / TUNE / "job-1234" / "trial" / "result.json").write_bytes(b"12345")
    (folder / TUNE / "job-1234" / TUNE_OVER).touch()
    (folder / TUNE / "a file").touch()
    (folder / "search" / "name-0123456789abcdef" / "no attempt").mkdir(parents=True)
    (folder / "search" / "name-0123456789abcdef" / "trial-00000.json").write_text("{}")
    contents = inventory(store)
    assert contents.artifacts == {each.step_path: each for each in (eight, seven, total)}
    assert list(contents.places) == sorted([*contents.artifacts, "sums/sum-0123456789abcdef"])
    unnamed = {
        path: {name: attempt.size for name, attempt in place.unnamed.items()}
        for path, place in contents.places.items()
        if place.unnamed
    }
    assert unnamed == {
        "sums/sum-0123456789abcdef": {"attempt-a": 30},
        eight.step_path: {"attempt-b": 20},
    }
    assert contents.places[seven.step_path].size == 1 and contents.unreadable == {}
    assert {name: tune.size for name, tune in contents.tune.items()} == {"job-1234": 5}
    assert TUNE_OVER in contents.tune["job-1234"].files
    assert folder_at(store, f"{TUNE}/job-1234") == contents.tune["job-1234"]
    assert all(place_at(store, path) == place for path, place in contents.places.items())


def test_snapshots_of_an_unfinished_stage_are_no_artifacts(store, folder):
    step = folder / "checkpoint/bert-0123456789abcdef/train-0123456789abcdef/step-7"
    step.mkdir(parents=True)
    (step / MANIFEST).write_text("{}")
    (place,) = inventory(store).places.values()
    assert place.path == "checkpoint/bert-0123456789abcdef" and not place.has_manifest
    assert list(place.unnamed) == ["train-0123456789abcdef"]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda text: b"", "expected JSON, found 0 bytes"),
        (lambda text: text[: len(text) // 2], "expected JSON"),
        (lambda text: bytes(len(text)), "expected JSON"),
        (lambda text: b"{}", "expected the field 'kind', found 'None'"),
        (lambda text: b"[]", "expected fields, found a list"),
        (lambda text: text.replace(b'"files": {', b'"files": {"x": 1, '), "expected files with"),
        (lambda text: text.replace(b'"size": 1', b'"size": "1"'), "with size and sha256, found {"),
        (lambda text: text.replace(b"seven", b"eight"), "found that of numbers/eight-"),
        (lambda text: text.replace(b'"attempt-', b'"../attempt-'), "expected the name of a folder"),
    ],
    ids=[
        "empty",
        "cut",
        "zeros",
        "no field",
        "a list",
        "a wrong file",
        "a wrong size",
        "another's",
        "elsewhere",
    ],
)
def test_a_manifest_that_cannot_be_read_is_named(store, folder, damage, problem):
    seven, total, _ = three(store)
    manifest = folder / seven.step_path / MANIFEST
    manifest.write_bytes(damage(manifest.read_bytes()))
    contents = inventory(store)
    assert set(contents.unreadable) == {seven.step_path}
    assert problem in contents.unreadable[seven.step_path]
    assert total.step_path in contents.artifacts
    assert contents.places[seven.step_path].unnamed == {}  # who knows which one it named


def test_files_that_are_not_what_was_committed(store, folder):
    with store.attempt(Number(7), {}) as attempt:
        for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
            with attempt.open(name) as out:
                out.write(name.encode())
        made = attempt.commit({})
    assert list(damaged_files(made)) == []
    base = folder / made.step_path / made.manifest["attempt"]
    (base / "a.txt").unlink()
    (base / "b.txt").write_text("b.tx")
    (base / "c.txt").write_text("c.tXt")
    missing, short, changed = damaged_files(made)
    assert missing == "a.txt: not there" and short == "b.txt: expected 5 bytes, found 4"
    expected = made.manifest["files"]["c.txt"]["sha256"]
    assert changed.startswith(f"c.txt: expected the sha256 {expected}, found ")
    shutil.rmtree(base)
    assert len(list(damaged_files(made))) == 4


def test_an_artifact_is_named_in_many_ways(store):
    seven, *_ = three(store)
    contents = inventory(store)
    for text in (
        seven.step_path,
        f"seven-{seven.digest}",
        seven.digest,
        seven.digest[:6],
        seven.uri,
        f"{seven.uri}/",
        f"s3://elsewhere/{seven.step_path}",
    ):
        assert contents.named(text).artifact == seven
    with pytest.raises(ConfigError, match="did you mean 'seven-"):
        contents.named(f"sevn-{seven.digest}")
    with pytest.raises(ConfigError, match="no artifact ''"):
        contents.named("")
    Builder(store).get(Number(7, "again"))
    with pytest.raises(ConfigError, match=r"expected one artifact, found 2: numbers/again-"):
        inventory(store).named(seven.digest)


def test_what_an_artifact_was_made_from(store, folder):
    seven, total, _ = three(store)
    assert inventory(store).behind({total.step_path}) == {total.step_path, seven.step_path}
    shutil.rmtree(folder / seven.step_path)
    assert inventory(store).behind({total.step_path}) == {total.step_path, seven.step_path}
    assert inventory(store).behind({"sums/unknown"}) == {"sums/unknown"}


def test_a_cycle_of_manifests_ends(store, folder):
    seven, total, _ = three(store)
    path = folder / seven.step_path / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["inputs"] = {"itself": {"path": total.step_path, "checksum": ""}}
    path.write_text(json.dumps(manifest))
    assert inventory(store).behind({seven.step_path}) == {seven.step_path, total.step_path}


def test_a_storage_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="expected a directory or a bucket, found none"):
        inventory(Store(str(tmp_path / "nothing")))


def test_sizes_for_people():
    sizes = [0, 7, 999, 1000, 1234, 999_600, 1.5e9, 2.5e12, 3.4e16]
    texts = ["0 B", "7 B", "999 B", "1.0 kB", "1.2 kB", "1.0 MB", "1.5 GB", "2.5 TB", "34,000.0 TB"]
    assert list(map(size_text, sizes)) == texts
