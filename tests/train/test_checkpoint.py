"""Checkpoints are there whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import torch

from raypipe.train.checkpoint import Checkpoints
from raypipe.train.snapshot import Snapshot

LOCAL = pafs.LocalFileSystem()


def files(folder: Path, fs=LOCAL, keep: int = 2, origin: str = "abc") -> Checkpoints:
    return Checkpoints(fs, str(folder / "train"), {"groups": origin}, keep)


def snapshot(step: int) -> Snapshot:
    weights = {
        "w": torch.full((3, 2), float(step)),
        "scalar": torch.tensor(step, dtype=torch.int64),
    }
    rng = {"0|cpu": torch.arange(16, dtype=torch.uint8)}
    return Snapshot(step, {"world": 1, "loss": 0.1 * step}, {"weights": weights, "rng": rng})


def write(stored: Checkpoints, step: int) -> Path:
    return Path(stored.write(snapshot(step), stored.new_name(step)))


def test_what_is_written_is_read(tmp_path):
    stored = files(tmp_path)
    assert stored.newest() is None and stored.names() == []
    path = write(stored, 40)
    assert stored.newest() == path.name and path.name.startswith("step-00000040-")
    read, expected = stored.read(path.name), snapshot(40)
    assert read.step == 40 and read.facts == expected.facts
    assert read.tensors.keys() == expected.tensors.keys()
    for part, tensors in expected.tensors.items():
        for name, value in tensors.items():
            assert torch.equal(read.tensors[part][name], value)
            assert read.tensors[part][name].dtype == value.dtype


def test_the_last_ones_are_kept(tmp_path):
    stored = files(tmp_path)
    for step in (5, 10, 15, 100):
        write(stored, step)
    assert [name[:13] for name in stored.names()] == ["step-00000100", "step-00000015"]
    assert stored.read(stored.newest()).step == 100


def test_an_interrupted_upload_is_not_used(tmp_path):
    stored = files(tmp_path)
    good = write(stored, 10)
    cut = write(stored, 20)
    (cut / "manifest.json").unlink()  # it is written last
    assert stored.newest() == good.name
    half = write(stored, 30)
    text = (half / "manifest.json").read_text()
    (half / "manifest.json").write_text(text[: len(text) // 2])
    assert stored.newest() == good.name
    assert good.is_dir()  # incomplete ones count for nothing when old ones are deleted
    for step in (40, 50):
        write(stored, step)
    assert [name[:13] for name in stored.names()] == ["step-00000050", "step-00000040"]


@pytest.mark.parametrize("file", ["weights.safetensors", "rng.safetensors", "facts.json"])
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_damaged_file_is_not_used(tmp_path, file, how):
    stored = files(tmp_path)
    good, bad = write(stored, 10), write(stored, 20)
    if how == "missing":
        (bad / file).unlink()
    else:
        data = bytearray((bad / file).read_bytes())
        data[-1] ^= 1  # same size
        (bad / file).write_bytes(bytes(data))
    with pytest.warns(UserWarning, match=f"{file} is damaged: not used"):
        assert stored.newest() == good.name


def test_other_inputs_are_another_training(tmp_path):
    write(files(tmp_path), 10)
    assert files(tmp_path, origin="xyz").newest() is None
    assert files(tmp_path).newest() is not None


def test_checkpoints_of_other_writers_are_read_and_stay(tmp_path):
    """Each writer has a folder of its own: nobody deletes what another one needs."""
    first, other = files(tmp_path / "a"), files(tmp_path / "b")
    theirs = [write(first, step) for step in (10, 20)]
    mine = dataclasses.replace(other, earlier=(first.base, str(tmp_path / "nowhere")))
    assert mine.newest() == theirs[1].name and mine.read(theirs[1].name).step == 20
    for step in (30, 40, 50):
        write(mine, step)
    assert all(path.is_dir() for path in theirs)
    assert [name[:13] for name in other.names()] == ["step-00000050", "step-00000040"]
    assert mine.read(mine.newest()).step == 50


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"7", b"{}", bytes(40), b'{"format": 1}', b"[" * 10**5]
)
def test_a_damaged_manifest_is_not_used(tmp_path, content):
    stored = files(tmp_path)
    good, bad = write(stored, 10), write(stored, 20)
    (bad / "manifest.json").write_bytes(content)
    assert stored.newest() == good.name


class Full:
    """A local file system whose disk is full after `room` bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __getattr__(self, name):
        return getattr(LOCAL, name)

    def open_output_stream(self, path):
        disk, sink = self, LOCAL.open_output_stream(path)

        class Sink:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                sink.close()

            def write(self, data):
                disk.room -= len(data)
                sink.write(data[: max(disk.room + len(data), 0)])
                if disk.room < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")

        return Sink()


@pytest.mark.parametrize("room", [0, 100, 300, 600])
def test_a_full_disk_names_the_storage_and_spares_the_last_checkpoint(tmp_path, room):
    good = write(files(tmp_path), 10)
    full = files(tmp_path, Full(room))
    with pytest.raises(OSError, match=r"storage: the checkpoint of step 20.*No space.*step 10"):
        write(full, 20)
    assert full.names() == [good.name] and files(tmp_path).read(good.name).step == 10


def test_a_full_disk_before_the_first_checkpoint(tmp_path):
    with pytest.raises(OSError, match=r"goes on from the beginning of the stage"):
        write(files(tmp_path, Full(0)), 20)


def test_two_writers_of_one_step_do_not_meet(tmp_path):
    stored = files(tmp_path)
    assert write(stored, 10) != write(stored, 10)
    assert len(stored.names()) == 2


def test_the_manifest_is_plain(tmp_path):
    path = write(files(tmp_path), 10)
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["step"] == 10 and manifest["origin"] == {"groups": "abc"}
    assert set(manifest["files"]) == {p.name for p in path.iterdir()} - {"manifest.json"}
    assert {p.suffix for p in path.iterdir()} == {".json", ".safetensors"}  # nothing is pickled


@pytest.mark.parametrize(
    "listed",
    [
        [],
        None,
        {},
        {"facts.json": None},
        {"facts.json": {}},
        {"facts.json": {"size": 1, "sha256": ""}, "\ud800": {"size": 1, "sha256": ""}},
    ],
)
@pytest.mark.filterwarnings("ignore:.*is damaged")
def test_a_manifest_with_a_damaged_list_of_files_is_not_used(tmp_path, listed):
    stored = files(tmp_path)
    good, bad = write(stored, 10), write(stored, 20)
    manifest = json.loads((bad / "manifest.json").read_text())
    (bad / "manifest.json").write_text(json.dumps(manifest | {"files": listed}))
    assert stored.newest() == good.name


def test_a_file_name_that_no_file_can_have_is_damage(tmp_path):
    stored = files(tmp_path)
    good, bad = write(stored, 10), write(stored, 20)
    manifest = json.loads((bad / "manifest.json").read_text())
    manifest["files"]["a\0"] = manifest["files"]["facts.json"]
    (bad / "manifest.json").write_text(json.dumps(manifest))
    with pytest.warns(UserWarning, match="is damaged: not used"):
        assert stored.newest() == good.name


def test_a_file_in_the_place_of_a_folder_of_checkpoints_holds_none(tmp_path):
    (tmp_path / "other").write_text("a file")
    stored = dataclasses.replace(files(tmp_path), earlier=(str(tmp_path / "other"),))
    path = write(stored, 10)
    assert stored.names() == [path.name]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "train").write_text("a file")
    with pytest.raises(OSError, match="storage: the checkpoint of step 20 could not be written"):
        write(files(tmp_path / "b"), 20)


@pytest.mark.parametrize("name", ["step-zzz", "step-", "step-7"])
def test_a_folder_of_another_name_is_no_checkpoint(tmp_path, name):
    stored = files(tmp_path)
    write(stored, 10).rename(tmp_path / "train" / name)
    assert stored.newest() is None
    assert "the beginning" in str(stored.not_written("it", "there", OSError("full")))


def test_a_storage_that_is_gone_does_not_hide_what_could_not_be_written(tmp_path):
    class Gone:
        def get_file_info(self, *_):
            raise OSError("no route to host")

    error = files(tmp_path, Gone()).not_written("it", "there", OSError("full"))
    assert "(full)" in str(error) and "the last checkpoint that can be read" in str(error)
