"""Servers that hang, wholly or in part, are slow or busy: no record is lost, no job waits long."""

from __future__ import annotations

import errno
import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from raypipe.tracking.client import client, resolved
from raypipe.tracking.orphans import send_left_behind
from raypipe.tracking.patience import TIMEOUT, seconds, tries, uploading
from raypipe.tracking.record import Record
from raypipe.tracking.recorder import Recorder
from raypipe.tracking.server import Server
from raypipe.tracking.spool import Spool, spools

SEARCH = "/api/2.0/mlflow/experiments/search"
START, METRICS = (Record(0, verb, "a", {}) for verb in ("start", "metrics"))


@pytest.fixture(autouse=True)
def _short(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(TIMEOUT, "1")


class Half(ThreadingHTTPServer):
    """Says that it is there; what else it is asked, it answers with `status`, or never."""

    daemon_threads, block_on_close = True, False

    def __init__(self, status: int | None = None) -> None:
        self.status, self.over = status, threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Half:
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith(SEARCH):
            self._answer(200, {"experiments": []})
        elif self.server.status is None:
            self.server.over.wait(60)
        else:
            self._answer(self.server.status, "no")

    do_POST = do_GET

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *said: object) -> None:
        pass


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are taken and nothing is answered."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield one.getsockname()[1]


def record(uri: str) -> tuple[int, int]:
    """Three records for a server; what still waits and what was refused when the job ends."""
    said: list[str] = []
    recorder = Recorder(uri, "hung", said.append)
    recorder.start("job", "job", "job", params={"a": 1})
    recorder.log("job", {"loss": 1.0}, step=3)
    recorder.finish("job")
    began = time.monotonic()
    found = recorder.drain(patience=0.5)
    recorder.close()
    assert time.monotonic() - began < 30
    assert not any("secret" in line for line in said)
    return found


def test_a_server_that_hangs_gets_all_when_it_is_back(silent, tmp_path):
    assert record(f"http://me:secret@127.0.0.1:{silent}") == (3, 0)
    assert_all_arrives(tmp_path)


def test_a_server_that_hangs_in_part_gets_all_when_it_is_back(tmp_path):
    with Half() as server:
        assert Server(server.uri, "x").alive()
        assert record(server.uri) == (3, 0)
    assert_all_arrives(tmp_path)


def test_a_busy_server_gets_all_when_it_is_back(tmp_path):
    with Half(503) as server:
        assert record(server.uri) == (3, 0)
    assert_all_arrives(tmp_path)


def assert_all_arrives(tmp_path: Path) -> None:
    """In a database that stands in for the server."""
    (folder,) = spools().iterdir()
    target = json.loads((folder / "target.json").read_text())
    uri, root = resolved(f"sqlite:///{tmp_path}/back.db")
    (folder / "target.json").write_text(json.dumps({**target, "uri": uri, "artifact_root": root}))
    assert send_left_behind(say=lambda line: None) == 0
    store = client(uri)
    (run,) = store.search_runs([store.get_experiment_by_name("hung").experiment_id])
    assert run.data.params == {"a": "1"} and run.data.metrics == {"loss": 1.0}
    assert run.info.status == "FINISHED" and list(spools().iterdir()) == []


def test_a_database_that_hangs_is_away(silent):
    pytest.importorskip("psycopg2", reason="needs the Python package psycopg2")
    uri = f"postgresql+psycopg2://me:se%3Fcret@127.0.0.1:{silent}/db?connect_timeout=2"
    with pytest.raises(Exception, match="timeout expired") as error:
        client(uri)
    assert tries(error.value, METRICS) == math.inf
    assert record(uri) == (3, 0)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, 1),
        (403, 1),
        (404, 1),
        (408, math.inf),
        (413, 1),
        (429, math.inf),
        (500, 6),
        (501, 1),
        (502, math.inf),
        (503, math.inf),
        (504, math.inf),
    ],
)
def test_what_the_server_answers_decides_how_often_it_is_asked(status, expected):
    with Half(status) as server, pytest.raises(Exception) as error:
        client(server.uri).get_run("0" * 32)
    assert tries(error.value, METRICS) == expected
    denied = status in (401, 403)  # somebody may allow it before the records are sent again
    assert tries(error.value, START) == (math.inf if expected > 1 or denied else 1)


def test_no_answer_passes_and_a_lost_file_does_not(silent):
    for port in (silent, 9):
        with pytest.raises(Exception) as error:
            client(f"http://127.0.0.1:{port}").get_run("0" * 32)
        assert tries(error.value, METRICS) == math.inf
    assert tries(ValueError("no"), METRICS) == 1
    assert 1 < tries(FileNotFoundError("gone"), METRICS) < math.inf
    assert tries(OSError(errno.ENOSPC, "full"), METRICS) == math.inf


def test_what_no_server_can_store_is_refused_and_holds_up_nobody(tmp_path):
    """A run's id or a path with bytes that are no text, which JSON writes down all the same."""
    target = {"uri": f"sqlite:///{tmp_path}/m.db", "experiment": "x", "artifact_root": ""}
    spool = Spool.create(target)
    for run, name in [("\ud800", "id"), ("b", "\udcff"), ("c", "sound")]:
        content = {"parent": None, "name": name, "params": {}, "tags": {}, "at": 1}
        spool.append("start", run, content)
        spool.append("finish", run, {"status": "FINISHED", "at": 2})
    spool.release()
    said: list[str] = []
    assert send_left_behind(say=said.append) == 0
    assert "all records sent, 2 of them refused" in said[-1]  # the name is made one of text
    store = client(target["uri"])
    runs = store.search_runs([store.get_experiment_by_name("x").experiment_id])
    assert "sound" in {run.info.run_name for run in runs} and len(runs) == 2
    assert list(spools().iterdir()) == []


def test_uploads_may_take_their_time(tmp_path, monkeypatch):
    import os

    large = tmp_path / "model" / "large"
    large.parent.mkdir()
    with large.open("wb") as out:
        out.truncate(100 << 20)  # sparse
    with uploading([large.parent]):
        assert int(os.environ[TIMEOUT]) > 100
    assert os.environ[TIMEOUT] == "1"
    assert seconds(Record(0, "model", "a", {}, (large.parent,))) > seconds(METRICS) + 100
    monkeypatch.setenv(TIMEOUT, "1000")  # the user's own
    with uploading([large]):
        assert os.environ[TIMEOUT] == "1000"


def test_a_proxy_that_stores_slowly_is_waited_for(tmp_path):
    """It answers an upload later than any other call may take."""
    stored = []

    class Proxy(_Handler):
        def do_GET(self) -> None:
            address = "mlflow-artifacts:/1/r/artifacts"
            info = {"run_id": "r", "experiment_id": "1", "artifact_uri": address}
            self._answer(200, {"run": {"info": info, "data": {}}})

        def do_PUT(self) -> None:
            stored.append(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(1.5)
            self._answer(200, {})

    (tmp_path / "report.md").write_text("# Report")
    with Half() as server:
        server.RequestHandlerClass = Proxy
        Server(server.uri, "x")._artifacts("r", [tmp_path / "report.md"])
    assert stored == [b"# Report"]
