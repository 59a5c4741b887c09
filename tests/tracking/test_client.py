"""Where MLflow writes, and who may read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raypipe.tracking.client import client, default_uri, resolved
from raypipe.tracking.recorder import Recorder


def test_an_address_is_resolved_masked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    address, root = resolved("sqlite:///below/x.db")
    assert address.reveal() == f"sqlite:///{tmp_path}/below/x.db"
    assert root == (tmp_path / "below" / "mlartifacts").as_uri()
    for typed in ("postgresql://me:hush@host/db", "http://me:hush@host"):
        address, root = resolved(typed)
        assert (address.reveal(), "hush" in f"{address} {root}") == (typed, False)


def test_mlflows_files_in_the_home_are_its_owners_alone(tmp_path, monkeypatch):
    home, shared = tmp_path / "home", tmp_path / "open.bin"
    monkeypatch.setenv("RAYPIPE_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (home).mkdir(0o755)
    (home / "mlflow.db").touch(0o644)  # as raypipe 0.1 left it
    shared.write_bytes(b"1")  # MLflow copies the rights with the file
    said: list[str] = []
    recorder = Recorder(None, "owned", said.append)
    recorder.start("job", "job", "job")
    recorder.log_text("job", "text", "text.txt")
    recorder.log_artifact("job", shared, "open.bin")
    recorder.finish("job")
    assert recorder.drain(60.0) == (0, 0), said
    places = [home, *home.rglob("*")]
    assert {"mlflow.db", "text.txt", "open.bin"} <= {path.name for path in places}
    assert [path for path in places if path.stat().st_mode & 0o077] == []
    recorder.close()


def test_a_database_outside_the_home_has_the_users_rights(tmp_path):
    os.umask(0o002)
    resolved(f"sqlite:///{tmp_path}/shared/x.db")
    assert os.umask(0o022) == 0o002
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o775


def test_mlflow_prints_no_address(capfd, tmp_path):
    """Its client writes the address of a run, as it was typed, to the standard output."""
    Path(tmp_path / "x").mkdir()
    store = client(f"sqlite:///{tmp_path}/x/x.db")
    run = store.create_run(store.create_experiment("x"))
    store.set_terminated(run.info.run_id)
    assert "View run" not in capfd.readouterr().out


def test_the_environment_names_the_default(monkeypatch, tmp_path):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_uri() == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", raising=False)
