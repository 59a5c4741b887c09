"""What the writing actor says besides what it writes, and how it goes on when it is killed; needs
no cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from tracked_jobs import BASE, failed, row

from raypipe.sweep.report_facts import links_of
from raypipe.tracking.names import ROW_TAG
from raypipe.tracking.recorder import Recorder
from raypipe.tracking.relay import Relay, _Writer
from raypipe.tracking.spool import Spool, spools
from raypipe.tracking.stored_runs import TrackingStore


def begun(writer: _Writer) -> None:
    """A job with a baseline, two tries of a trial, and a stage."""
    writer.call("start", "job", "links", "job", None, {}, {})
    writer.call("start", "base", "BM25", "baseline", "job", {}, {ROW_TAG: "BM25"})
    for run in ("first", "second"):
        writer.call("start", run, "cl / seed 1", "trial", "job", {}, {ROW_TAG: "cl"})
    writer.call("start", "stage", "contrastive", "stage", "second", {}, {"digest": "abc"})


class Near:
    """A relay whose writer is in this process."""

    def __init__(self, writer: _Writer) -> None:
        self.links = writer.links


def test_rows_are_linked_to_their_runs(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    writer = _Writer(uri, "links")
    begun(writer)
    store = TrackingStore(uri)
    rows = [BASE, row("cl", "trained", 0.1, [1]), failed("kd", 1, "died")]
    found = links_of(rows, Near(writer))
    writer.close()
    children = {run.address: run.name for run in store.children(store.job("links"))}
    assert list(found) == ["BM25", "cl"] and [len(v) for v in found.values()] == [1, 2]
    assert {a: children[a] for v in found.values() for a in v} == children


def test_a_server_that_is_away_gives_no_links(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))  # its records stay behind
    writer = _Writer("http://127.0.0.1:9", "links")
    begun(writer)
    assert links_of([], Near(writer)) == writer.links() == {}
    writer.close()


# --- an actor that is killed ---------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch) -> str:
    """Where spools are; gives the address of a database."""
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))
    return f"sqlite:///{tmp_path}/mlflow.db"


def died(writer: _Writer) -> None:
    """What the end of the process is to its spool: no record is sent any more, the lock is free."""
    sender = writer._recorder.sender
    sender.end()
    assert sender.ended(60)
    writer._recorder.spool.release()


def test_a_writer_that_was_killed_goes_on_in_its_spool(home, monkeypatch):
    watched = []
    monkeypatch.setattr(Recorder, "watch", lambda self, run: watched.append(run))
    first = _Writer(home, "links", "sweep.py", "job-1")
    begun(first)
    died(first)
    second = _Writer(home, "links", "sweep.py", "job-1")
    for run in ("stage", "first", "second", "base", "job"):
        second.call("finish", run)
    tracked = second.drain(5)
    assert (tracked["waiting"], tracked["refused"], tracked["lost"]) == (0, 0, 0)
    assert watched == ["job"]  # figures of the machine go on
    assert {row: len(pages) for row, pages in second.links().items()} == {"BM25": 1, "cl": 2}
    second.close()
    store = TrackingStore(home)
    job = store.job("links")
    assert job.status == "FINISHED"
    children = [(run.name, run.status) for run in store.children(job)]  # each once, none killed
    assert children == [("BM25", "FINISHED"), *[("cl / seed 1", "FINISHED")] * 2]


def test_what_another_job_took_over_meanwhile_goes_on_in_a_new_spool(home):
    away = "http://127.0.0.1:9"
    first = _Writer(away, "links", "", "job-1")
    begun(first)
    died(first)
    taken = Spool(spools() / "job-1")
    assert taken.hold()
    second = _Writer(away, "links", "", "job-1")
    assert second._recorder.spool.folder.name != "job-1"
    second.close()
    taken.release()


class Remote:
    """A handle of an actor: calls go to `verbs`, and fail if the actor is dead."""

    def __init__(self, verbs: Any, alive: bool) -> None:
        self.verbs, self.alive = verbs, alive

    def __getattr__(self, verb: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: (self, verb, arguments))

    @staticmethod
    def get(call: tuple[Remote, str, tuple[Any, ...]]) -> Any:
        actor, verb, arguments = call
        if not actor.alive:
            raise ray.exceptions.RayActorError(error_msg="It died:\nTraceback\nNo space left")
        return getattr(actor.verbs, verb)(*arguments)


@pytest.mark.parametrize("alive_at_last", [True, False])
def test_an_actor_that_is_gone_for_good_ends_no_job(monkeypatch, caplog, alive_at_last):
    tracked = {"waiting": 2, "refused": 3, "lost": 4, "folder": "/there", "uri": "x", "runs": {}}
    verbs = SimpleNamespace(
        stored=lambda: 7,
        lines=lambda: ["a warning"],
        links=lambda: {"row": ["page"]},
        drain=lambda patience: tracked,
        close=lambda: None,
    )
    actors = iter([Remote(verbs, False)] + [Remote(verbs, alive_at_last)] * 9)
    monkeypatch.setattr(Relay, "_started", lambda relay: next(actors))
    monkeypatch.setattr("raypipe.tracking.relay.ray.get", Remote.get)
    relay, said = Relay(("x", "links", "", "job-1")), []
    relay.send("finish", "job")
    relay.stored()
    assert relay.links() == ({"row": ["page"]} if alive_at_last else {})
    assert relay.drain(said.append)["runs"] == {}
    relay.close()
    words = " ".join(said)
    for part in ("a warning", "2 records wait", "3 records were refused", "4 records could not"):
        assert (part in words) == alive_at_last
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == (0 if alive_at_last else 1)  # it is said once
    assert all("stored failed, and the job goes on: No space left" in line for line in warnings)
