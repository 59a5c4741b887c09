"""Damage of files on a disk: sizes are always looked at, checksums once per machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from number_steps import Number, read

from raypipe.storage import verified
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.storage.files import home


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    return Store(str(tmp_path / "storage"))


def another_machine(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "another"))


def test_a_changed_file_of_the_same_size_is_found_on_another_machine(store, monkeypatch, tmp_path):
    step = Number(7)
    path = Builder(store).get(step).local() / "value.txt"
    path.write_text("8")
    another_machine(monkeypatch, tmp_path)
    with pytest.warns(UserWarning, match=r"value\.txt is damaged: made again"):
        assert store.find(step) is None
    with pytest.warns(UserWarning, match="made again"):
        assert read(Builder(store).get(step).local()) == 7


def test_checksums_are_computed_once_per_machine(store, monkeypatch, tmp_path):
    computed, checksum = [], verified.sha256

    def counted(stream):
        computed.append(checksum(stream))
        return computed[-1]

    monkeypatch.setattr(verified, "sha256", counted)
    step = Number(7)
    made = Builder(store).get(step)
    assert store.find(step) == made and computed == []  # the writer has seen them
    another_machine(monkeypatch, tmp_path)
    assert store.find(step) == store.find(step) == made
    assert computed == [meta["sha256"] for meta in made.manifest["files"].values()]


def test_a_home_that_cannot_be_written_costs_only_time(store, monkeypatch, tmp_path):
    step = Number(7)
    made = Builder(store).get(step)
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "file"))
    assert store.find(step) == made and not home().is_dir()


def test_what_was_committed_over_damage_is_another_artifact(store, tmp_path):
    step = Number(7)
    first = Builder(store).get(step)
    (Path(first.local()) / "value.txt").unlink()
    with pytest.warns(UserWarning, match="made again"):
        second = Builder(store).get(step)
    assert second.manifest["attempt"] != first.manifest["attempt"]
    assert store.find(step) == second
