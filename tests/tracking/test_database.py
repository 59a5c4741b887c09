"""The sqlite database is there whole, whatever moment a job was killed at."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from raypipe.storage.address import Address
from raypipe.tracking.client import client
from raypipe.tracking.database import make_database
from raypipe.tracking.server import Server

KILLED = """
import os, signal, sys
from raypipe.tracking import database
from mlflow.store.db import utils
upgrade = utils._upgrade_db

def killed(engine):
    from sqlalchemy import event
    made = []
    @event.listens_for(engine, "after_cursor_execute")
    def count(connection, cursor, statement, *_):
        made.append(statement.startswith("\\nCREATE TABLE"))
        if sum(made) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    upgrade(engine)

utils._upgrade_db = killed
database.{function}(database.Path({file!r}))
"""


def tables(file: Path) -> set[str]:
    with sqlite3.connect(file) as database:
        return {n for (n,) in database.execute("SELECT name FROM sqlite_master")}


@pytest.fixture(scope="module")
def half(tmp_path_factory) -> bytes:
    """What a kill between two tables of MLflow's own start leaves."""
    file = tmp_path_factory.mktemp("half") / "mlflow.db"
    code = KILLED.format(function="_make_tables", file=str(file))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return file.read_bytes()


def test_a_half_made_database_without_runs_is_made_anew(half, tmp_path, caplog):
    from mlflow import MlflowClient

    (tmp_path / "theirs.db").write_bytes(half)
    with pytest.raises(Exception, match="already exists"):  # for ever, by itself
        MlflowClient(f"sqlite:///{tmp_path}/theirs.db").search_experiments()
    file = tmp_path / "mlflow.db"
    file.write_bytes(half)
    found = client(f"sqlite:///{file}")
    run = found.create_run(found.create_experiment("one")).info.run_id
    assert found.get_run(run).info.run_id == run
    assert (tmp_path / "mlflow.db.half-made").read_bytes() == half
    assert "half-made by a job that was killed, and held no run" in caplog.text
    caplog.clear()
    assert client(f"sqlite:///{file}").get_run(run).info.run_id == run and not caplog.text


def test_a_database_with_runs_is_left_to_mlflow(half, tmp_path, caplog):
    file = tmp_path / "mlflow.db"
    file.write_bytes(half)
    with sqlite3.connect(file) as database:
        database.execute("INSERT INTO runs (run_uuid, name) VALUES ('a', 'b')")
    before = tables(file)
    make_database(file)
    assert tables(file) == before and os.listdir(tmp_path) == ["mlflow.db"] and not caplog.text


def test_a_job_that_is_killed_meanwhile_leaves_no_database(tmp_path):
    file = tmp_path / "mlflow.db"
    code = KILLED.format(function="make_database", file=str(file))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL and not file.exists()
    make_database(file)
    assert "runs" in tables(file) and not Path(f"{file}.new").exists()


@pytest.mark.parametrize("content", [b"", None])
def test_an_empty_or_missing_file_becomes_a_database(tmp_path, content, caplog):
    file = tmp_path / "mlflow.db"
    if content is not None:
        file.write_bytes(content)
    make_database(file)
    assert "runs" in tables(file) and not caplog.text
    assert sorted(os.listdir(tmp_path)) == ["mlflow.db", "mlflow.db.new.lock"]


def test_what_is_no_database_is_left_to_mlflow(tmp_path):
    file = tmp_path / "mlflow.db"
    file.write_bytes(b"no database" * 100)
    make_database(file)
    assert file.read_bytes() == b"no database" * 100


def test_a_server_that_is_asked_for_its_experiment_makes_the_database(tmp_path):
    """It holds a lock of its own meanwhile."""
    server = Server(Address(f"sqlite:///{tmp_path}/mlflow.db"), "one")
    asking = threading.Thread(target=server.connect, daemon=True)
    asking.start()
    asking.join(60)
    assert not asking.is_alive() and server.experiment_id


def test_parameters_of_an_address_are_no_part_of_the_file(tmp_path):
    assert client(f"sqlite:///{tmp_path}/mlflow.db?timeout=5").search_experiments()
    assert "mlflow.db" in os.listdir(tmp_path) and not list(tmp_path.glob("*timeout*"))
