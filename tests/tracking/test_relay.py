"""What the writing actor says besides what it writes; needs no cluster."""

from __future__ import annotations

from tracked_jobs import BASE, failed, row

from raypipe.sweep.report_facts import links_of
from raypipe.tracking.names import ROW_TAG
from raypipe.tracking.relay import _Writer
from raypipe.tracking.stored_runs import TrackingStore


def begun(writer: _Writer) -> None:
    """A job with a baseline, two tries of a trial, and a stage."""
    writer.start("job", "links", "job", None, {}, {})
    writer.start("base", "BM25", "baseline", "job", {}, {ROW_TAG: "BM25"})
    for run in ("first", "second"):
        writer.start(run, "cl / seed 1", "trial", "job", {}, {ROW_TAG: "cl"})
    writer.start("stage", "contrastive", "stage", "second", {}, {"digest": "abc"})


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
