"""What nobody writes is removed, and a writer that slept too long commits nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from clocks import age, elsewhere
from number_steps import Number, read

from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.storage.conditional import DiskFiles
from raypipe.storage.sweeping import sweep


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "storage"))


def names(store: Store, step: Number) -> list[str]:
    return sorted(path.name for path in (Path(store.root) / step.path).iterdir())


def test_only_what_nobody_writes_is_swept(store):
    step = Number(7)
    made = Builder(store).get(step)
    with store.attempt(step, {}), pytest.raises(RuntimeError), store.attempt(step, {}) as ended:
        ended.resumable = True
        raise RuntimeError
    assert ended.base in sweep(store, step.path)
    assert store.find(step) == made and read(made.local()) == 7
    assert not Path(ended.base).exists()


def test_a_living_writer_keeps_its_attempt(store):
    step = Number(7)
    Builder(store).get(step)
    with store.attempt(step, {}) as attempt:
        assert sweep(store, step.path) == [] and Path(attempt.base).is_dir()


def test_a_swept_attempt_is_not_committed(store):
    """Its writer was asleep: no manifest may name files that are gone."""
    step = Number(7)
    lost = r"lost files before it was committed.*run the same command"
    with pytest.raises(OSError, match=lost), store.attempt(step, {}) as attempt:
        counts = step.run(attempt, None)
        elsewhere(Path(attempt.base))
        age(Path(attempt.base), 1000)
        assert sweep(store, step.path) == [attempt.base]
        Path(attempt.base).mkdir()
        step.run(attempt, None)  # an actor still writes
        attempt.commit(counts)
    assert store.find(step) is None


def test_a_writer_that_wakes_between_mark_and_removal_withdraws(store, monkeypatch):
    """The sweeper has looked at the manifest, which was not there yet."""
    step = Number(7)
    with pytest.raises(OSError, match="lost files"), store.attempt(step, {}) as attempt:
        counts = step.run(attempt, None)
        mark = f"{step.path}/.swept-{attempt.name}"
        store.conditional.create(mark, b"swept\n")
        with pytest.warns(UserWarning, match="damaged"):
            attempt.commit(counts)
    with pytest.warns(UserWarning, match="damaged: made again"):
        assert read(Builder(store).get(step).local()) == 7


def test_the_mark_of_a_dead_writer_goes_with_its_attempt(store):
    step = Number(7)
    with pytest.raises(RuntimeError), store.attempt(step, {}) as attempt:
        attempt.resumable = True
        raise RuntimeError
    assert sweep(store, step.path) == [attempt.base]
    assert names(store, step) == []


def test_folders_that_are_not_raypipe_s_stay(store):
    step = Number(7)
    made = Builder(store).get(step)
    for name in ("backup", ".snapshot", "lost+found", "attempt-x.bak"):
        (made.local().parent / name).mkdir()
        age(made.local().parent / name, 3 * 24 * 3600)
    assert sweep(store, step.path) == [] and store.writers(step) == []
    assert len(names(store, step)) == 6


def test_a_full_disk_is_swept_too(store, monkeypatch):
    step = Number(7)
    with pytest.raises(RuntimeError), store.attempt(step, {}) as attempt:
        attempt.resumable = True
        raise RuntimeError

    def full(self, path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DiskFiles, "create", full)
    assert sweep(store, step.path) == [attempt.base]
