"""The sender against servers that are away, come back, refuse, or answer twice."""

from __future__ import annotations

import errno
import threading
import time

import pytest

from raypipe.tracking.sender import Sender, drain, stop
from raypipe.tracking.server import UnknownRunError
from raypipe.tracking.spool import Spool

TARGET = {"uri": "http://me:secret@there", "experiment": "x", "artifact_root": ""}


class Fake:
    """A server whose state a test sets."""

    uri = TARGET["uri"]
    experiment = "x"

    def __init__(self) -> None:
        self.away = False
        self.refuses: set[str] = set()
        self.seen: list[tuple[str, bool]] = []
        self.waiting = False
        self.lock = threading.Event()
        self.lock.set()

    def alive(self) -> bool:
        return not self.away

    def deliver(self, record, runs, again):
        self.waiting = not self.lock.is_set()
        self.lock.wait(10)
        if self.away:
            raise ConnectionError("nobody there")
        if record.verb in self.refuses:
            raise ValueError("no such thing")
        if record.verb != "start" and record.run not in runs:
            raise UnknownRunError(record.run)
        self.seen.append((record.verb, again))
        return f"server-{record.run}" if record.verb == "start" else None


@pytest.fixture
def spool(tmp_path) -> Spool:
    return Spool.create(TARGET, tmp_path)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def start(spool, said):
    """Starts a sender; it is stopped after the test."""
    senders = []

    def begin(server) -> Sender:
        senders.append(Sender(spool, server, said.append))
        return senders[-1]

    yield begin
    stop(senders)


def until(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_everything_is_sent_in_order(spool, said, start):
    sender = start(server := Fake())
    for verb in ("start", "metrics", "finish"):
        spool.append(verb, "a", {})
        sender.wake()
    assert drain([sender], 5) == 0
    assert [verb for verb, _ in server.seen] == ["start", "metrics", "finish"]
    assert server.seen[0][1] is True  # whoever held the spool before may have said it
    assert [again for _, again in server.seen[1:]] == [False, False]
    assert spool.runs == {"a": "server-a"} and said == []


def test_a_server_that_is_away_costs_nothing_and_gets_all_later(spool, said, start):
    server = Fake()
    server.away = True
    sender = start(server)
    began = time.monotonic()
    for verb in ("start", "metrics", "metrics", "finish"):
        spool.append(verb, "a", {})
        sender.wake()
    assert time.monotonic() - began < 1  # nobody waits for it
    assert drain([sender], patience=0.3) == 4
    until(lambda: said)
    assert "does not answer" in said[0] and str(spool.folder) in said[0]
    assert "secret" not in said[0]
    server.away = False
    assert drain([sender], 30) == 0
    assert [verb for verb, _ in server.seen] == ["start", "metrics", "metrics", "finish"]
    assert server.seen[0][1] is True  # its first call may have arrived
    assert len(said) == 2 and "answers again" in said[1]


def test_a_record_that_is_refused_holds_up_nobody(spool, said, start):
    server = Fake()
    server.refuses = {"dataset"}
    sender = start(server)
    for verb in ("start", "dataset", "dataset", "finish"):
        spool.append(verb, "a", {})
    sender.wake()
    assert drain([sender], 5) == 0
    assert [verb for verb, _ in server.seen] == ["start", "finish"]
    assert sender.refused == 2
    assert len(said) == 1 and "dataset was refused (ValueError: no such thing)" in said[0]


def test_a_run_that_was_refused_takes_its_records_with_it(spool, said, start):
    server = Fake()
    server.refuses = {"start"}
    sender = start(server)
    spool.append("start", "a", {})
    spool.append("metrics", "a", {})
    sender.wake()
    assert drain([sender], 5) == 0 and sender.refused == 2 and server.seen == []


def test_stopping_leaves_the_rest(spool, start):
    server = Fake()
    server.lock.clear()
    sender = start(server)
    spool.append("start", "a", {})
    spool.append("finish", "a", {})
    sender.wake()
    until(lambda: server.waiting)
    threading.Timer(0.2, server.lock.set).start()
    stop([sender])
    assert spool.waiting == 1  # the one that was being sent arrived
    assert [record.verb for record in spool.unsent()] == ["finish"]


def test_a_call_that_never_returns_holds_up_nobody_for_ever(spool, start, monkeypatch):
    monkeypatch.setattr("raypipe.tracking.sender.seconds", lambda record: 0.3)
    server = Fake()
    server.lock.clear()
    sender = start(server)
    spool.append("start", "a", {})
    sender.wake()
    until(lambda: server.waiting)
    assert drain([sender], 0.1) == 1 and not sender.away
    server.lock.set()
    assert drain([sender], 5) == 0


def test_a_record_that_takes_its_time_is_waited_for(spool, start):
    server = Fake()
    server.lock.clear()
    sender = start(server)
    spool.append("start", "a", {})
    sender.wake()
    until(lambda: server.waiting)
    threading.Timer(0.5, server.lock.set).start()
    assert drain([sender], patience=0.1) == 0


def test_several_spools_for_a_dead_server_cost_its_patience_once(said, start, tmp_path):
    senders = []
    for number in range(4):
        server = Fake()
        server.away = True
        one = Spool.create(TARGET, tmp_path / str(number))
        one.append("start", "a", {})
        senders.append(Sender(one, server, said.append))
    began = time.monotonic()
    assert drain(senders, patience=1) == 4
    assert time.monotonic() - began < 3
    stop(senders)
    assert all(one.spool.folder.is_dir() for one in senders)


def test_what_passes_is_never_refused(spool, said, start, monkeypatch):
    """The server answers whether it is there, and nothing else, longer than a refusal takes."""
    monkeypatch.setattr("raypipe.tracking.sender._PAUSES_S", (0.0,))
    server, calls = Fake(), []

    def hang(record, runs, again):
        calls.append(record.verb)
        if len(calls) < 30:
            raise TimeoutError("half of it hangs")
        return Fake.deliver(server, record, runs, again)

    server.deliver = hang
    sender = start(server)
    spool.append("start", "a", {})
    spool.append("finish", "a", {})
    sender.wake()
    assert drain([sender], 20) == 0
    assert sender.refused == 0 and [verb for verb, _ in server.seen] == ["start", "finish"]
    assert len(said) == 2 and "does not answer (half of it hangs)" in said[0]


# --- disks and damage ----------------------------------------------------------------------------


def test_a_damaged_line_holds_up_nobody(spool, said, start):
    spool.append("start", "a", {})
    with (spool.folder / "records.jsonl").open("ab") as out:
        out.write(b'{"verb": "met\n')
    spool.release()
    again = Spool(spool.folder)
    assert again.hold()
    again.append("finish", "a", {})
    sender = Sender(again, server := Fake(), said.append)
    assert drain([sender], 5) == 0 and sender.refused == 1
    assert [verb for verb, _ in server.seen] == ["start", "finish"]
    assert len(said) == 1 and f"line 2 of the records in {again.folder} was refused" in said[0]
    stop([sender])
    assert (spool.folder.parent / "aside" / spool.folder.name / "records.jsonl").is_file()


def test_what_another_process_began_may_have_arrived(spool, start):
    spool.append("start", "a", {})
    spool.append("start", "b", {})
    spool.release()
    again = Spool(spool.folder)
    assert again.hold()
    sender = Sender(again, server := Fake(), print)
    assert drain([sender], 5) == 0
    assert server.seen == [("start", True), ("start", True)]
    stop([sender])


def test_a_disk_that_takes_no_notes_keeps_no_record_from_the_server(spool, start, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for verb in ("start", "metrics", "finish"):
        spool.append(verb, "a", {})
    monkeypatch.setattr(Spool, "_put", full)
    sender = start(server := Fake())
    assert drain([sender], 5) == 0 and sender.refused == 0
    assert [verb for verb, _ in server.seen] == ["start", "metrics", "finish"]
    assert sender._thread.is_alive()


def test_a_disk_that_cannot_be_read_for_a_while(spool, said, start, monkeypatch):
    monkeypatch.setattr("raypipe.tracking.sender._PAUSES_S", (0.0,))
    failures = iter([OSError(errno.EIO, "Input/output error")] * 3)
    whole = Spool.unsent

    def unsent(self):
        for failure in failures:
            raise failure
        return whole(self)

    monkeypatch.setattr(Spool, "unsent", unsent)
    spool.append("start", "a", {})
    sender = start(server := Fake())
    until(lambda: server.seen)
    assert drain([sender], 5) == 0 and [verb for verb, _ in server.seen] == ["start"]
    assert "Input/output error" in said[0]
