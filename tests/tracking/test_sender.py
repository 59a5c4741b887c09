"""The sender against servers that are away, come back, refuse, or answer twice."""

from __future__ import annotations

import threading
import time

import pytest

from raypipe.tracking.sender import Sender
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
    for one in senders:
        one.stop()


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
    assert sender.drain(5) == 0
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
    assert sender.drain(patience=0.3) == 4
    until(lambda: said)
    assert "does not answer" in said[0] and str(spool.folder) in said[0]
    assert "secret" not in said[0]
    server.away = False
    assert sender.drain(30) == 0
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
    assert sender.drain(5) == 0
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
    assert sender.drain(5) == 0 and sender.refused == 2 and server.seen == []


def test_stopping_leaves_the_rest(spool, start):
    server = Fake()
    server.lock.clear()
    sender = start(server)
    spool.append("start", "a", {})
    spool.append("finish", "a", {})
    sender.wake()
    until(lambda: server.waiting)
    threading.Timer(0.2, server.lock.set).start()
    sender.stop()
    assert spool.waiting == 1  # the one that was being sent arrived
    assert [record.verb for record in spool.unsent()] == ["finish"]
