"""Who is alive: by signs in the storage and its clock, on the writer's machine by its process."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from clocks import age, elsewhere
from number_steps import Number

from raypipe.storage import liveness
from raypipe.storage.artifacts import Store
from raypipe.storage.liveness import LEASE_S, Heartbeat, Writer, states

DAY = 24 * 3600


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "storage"))


def state(store: Store, folder: Path):
    (only,) = states(store, [str(folder)])
    return only


def test_a_writer_is_alive_while_it_gives_signs(store):
    with store.attempt(Number(7), {}) as attempt:
        folder = Path(attempt.base)
        found = state(store, folder)
        assert found.alive and not found.abandoned and found.writer == Writer.this_process()
        elsewhere(folder)
        age(folder, LEASE_S / 2)
        assert state(store, folder).alive
        age(folder, LEASE_S)
        late = state(store, folder)
        assert late.abandoned and not late.alive and not late.ended  # it may only be asleep
        Heartbeat(store, attempt.base).there()
        (folder / ".alive").write_text("alive\n")
        assert state(store, folder).alive


def test_signs_are_renewed(store, tmp_path):
    (tmp_path / "storage" / "attempt").mkdir(parents=True)
    with Heartbeat(store, str(tmp_path / "storage" / "attempt"), lease=0.04) as heartbeat:
        alive, beat = Path(heartbeat.folder) / ".alive", []
        while len(set(beat)) < 3:
            if alive.exists():
                beat.append(alive.stat().st_mtime_ns)
    assert state(store, Path(heartbeat.folder)).ended


def test_no_sign_is_left_where_the_attempt_was_swept_away(store, tmp_path):
    folder = tmp_path / "storage" / "attempt"
    folder.mkdir(parents=True)
    with Heartbeat(store, str(folder), lease=0.02) as heartbeat:
        (folder / ".writer").unlink()
        (folder / ".alive").unlink(missing_ok=True)
        assert not heartbeat.there()
    assert [path.name for path in folder.iterdir() if path.name == ".ended"] == []


def test_a_dead_process_of_this_machine_is_known_at_once(store):
    """Also one whose number another process has by now."""
    living = Writer.this_process()
    assert not living.is_dead()
    assert dataclasses.replace(living, started=living.started + 1).is_dead()
    code = "import os, json; from raypipe.storage.liveness import *; import dataclasses; "
    code += "print(json.dumps(dataclasses.asdict(Writer.this_process())))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ended = Writer(**json.loads(out.stdout))
    assert ended.kernel == living.kernel and ended.is_dead()
    assert not dataclasses.replace(ended, kernel="another boot").is_dead()  # nobody can tell
    assert not dataclasses.replace(ended, kernel="").is_dead()


def test_a_process_that_nobody_waits_for_is_dead():
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert dataclasses.replace(Writer.this_process(), pid=child.pid).is_dead()
    child.wait()


def test_the_attempt_of_an_older_raypipe_is_kept_for_a_day_and_waited_for_for_minutes(
    store, tmp_path
):
    folder = tmp_path / "storage" / "attempt"
    folder.mkdir(parents=True)
    begun = state(store, folder)
    assert not begun.alive and not begun.abandoned  # its writer's name comes next
    (folder / "part-00000.parquet").write_text("x")
    assert state(store, folder).alive
    age(folder, DAY / 2)
    assert not state(store, folder).alive and not state(store, folder).abandoned
    age(folder, DAY)
    assert state(store, folder).abandoned


def test_signs_from_the_future_are_those_of_a_clock_that_was_set_back(store):
    with store.attempt(Number(7), {}) as attempt:
        age(Path(attempt.base), -3600)
        assert state(store, Path(attempt.base)).alive  # its process lives
        elsewhere(Path(attempt.base))
        age(Path(attempt.base), -3600)
        assert not state(store, Path(attempt.base)).alive  # nobody waits for an hour


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "\\u0000"}', "[" * 100_000])
def test_a_damaged_name_is_nobody_s(store, content):
    with store.attempt(Number(7), {}) as attempt:
        (Path(attempt.base) / ".writer").write_text(content)
        damaged = state(store, Path(attempt.base))
        assert damaged.writer is None and damaged.alive


def test_a_writer_that_dies_over_its_name_is_waited_for_by_nobody(store, monkeypatch):
    """On a disk the name is there whole or not at all; an attempt without one is not alive."""
    put = liveness._put

    def dies(root, path, data=b""):
        put(root, path)  # the file is made, its content never comes
        raise KeyboardInterrupt

    monkeypatch.setattr(liveness, "_put", dies)
    folder = Path(store.root, Number(7).path, "attempt-1")
    folder.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        Heartbeat(store, str(folder)).__enter__()
    monkeypatch.undo()
    assert not (folder / ".writer").exists() and not state(store, folder).alive
    assert store.writers(Number(7)) == []


def test_a_disk_that_takes_no_file_has_this_machine_s_clock(store, monkeypatch):
    with store.attempt(Number(7), {}) as attempt:

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(liveness, "_put", full)
        assert state(store, Path(attempt.base)).alive
        monkeypatch.undo()


def test_writers_are_in_the_order_of_their_beginning(store):
    with store.attempt(Number(7), {}) as first, store.attempt(Number(7), {}) as second:
        age(Path(first.base), 5)
        assert [w.folder for w in store.writers(Number(7))] == [first.base, second.base]
        assert first.comes_first() and not second.comes_first()
        age(Path(second.base), 10)
        assert second.comes_first() and not first.comes_first()
