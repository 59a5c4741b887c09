"""A writer's folder: what is put there, and by whom."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from number_steps import Number, read

from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "storage"))


def test_files_below_folders_are_part_of_the_artifact(store, tmp_path):
    source = tmp_path / "model"
    (source / "1_Pooling").mkdir(parents=True)
    (source / "config.json").write_text("{}")
    (source / "1_Pooling" / "config.json").write_text("[1]")
    step = Number(7)
    with store.attempt(step, {}) as attempt:
        attempt.put_directory(source)
        made = attempt.commit({})
    assert made.files == ["1_Pooling/config.json", "config.json"]
    assert (made.local() / "1_Pooling" / "config.json").read_text() == "[1]"


def test_an_attempt_and_a_store_can_be_sent_to_another_process(store):
    step = Number(7)
    with store.attempt(step, {}) as attempt:
        store.fs  # noqa: B018  opened here, and not sent
        there = pickle.loads(pickle.dumps(attempt))
        with there.open("value.txt") as out:
            out.write(b"8")
        made = attempt.commit({})
    assert there.base == attempt.base and read(made.local()) == 8
    assert vars(pickle.loads(pickle.dumps(store))) == {"uri": store.uri}


def test_notes_of_another_writer_are_not_copied(store, tmp_path):
    """A model's folder is an artifact with its writer's notes: `.ended` would end this attempt."""
    start = Builder(store).get(Number(3)).local()
    assert (start / ".ended").exists()
    with store.attempt(Number(7), {}) as attempt:
        name = Path(attempt.base, ".writer").read_bytes()
        attempt.put_directory(start)
        assert not Path(attempt.base, ".ended").exists()
        assert Path(attempt.base, ".writer").read_bytes() == name
        assert attempt.commit({}).files == ["value.txt"]
