"""Records of dead jobs whose server has a password, which no spool holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypipe.storage.address import Address
from raypipe.tracking import orphans as orphaned
from raypipe.tracking.orphans import orphans
from raypipe.tracking.spool import Spool, spools

TYPED = "http://me:hush@host:5000"


@pytest.fixture
def left(tmp_path, monkeypatch) -> Path:
    """The spool of a dead job."""
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(orphaned, "Sender", lambda spool, server, warn: server)  # nothing is sent
    target = {"uri": Address(TYPED), "experiment": "x", "artifact_root": ""}
    spool = Spool.create(target, name="dead")
    spool.append("tags", "run", {"tags": {}})
    spool.release()
    assert b"hush" not in b"".join(path.read_bytes() for path in spools().rglob("*.json*"))
    return spool.folder


def test_the_next_job_with_that_server_sends_them(left):
    (server,) = orphans(print, Address(TYPED))
    assert server.uri == TYPED and "hush" not in repr(server)


def test_so_does_a_command_in_whose_environment_the_address_is(left, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", TYPED)
    (server,) = orphans(print)
    assert server.uri.reveal() == TYPED


def test_without_the_keys_they_wait_and_it_is_said(left):
    said: list[str] = []
    assert orphans(said.append, Address("http://me:hush@elsewhere")) == []
    (line,) = said
    assert "keys of http://***@host:5000 are not known here" in line and str(left) in line
    assert "MLFLOW_TRACKING_URI=... python -m raypipe.tracking --send" in line
    (server,) = orphans(print, Address(TYPED))  # nobody holds the spool
    assert server.experiment == "x"


def test_a_spool_of_an_earlier_raypipe_has_its_address(left):
    target = json.loads((left / "target.json").read_text())
    (left / "target.json").write_text(json.dumps({**target, "uri": TYPED}))
    (server,) = orphans(print)
    assert server.uri.reveal() == TYPED
