"""`python -m raypipe.tracking`."""

from __future__ import annotations

import os
import sys

from raypipe.tracking.__main__ import main


def test_the_ui_gets_its_database_where_others_do_not_read_it(monkeypatch, capsys):
    uri, called = "postgresql://me:hush@host/db", []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(os, "execve", lambda *call: called.append(call))
    main(["--workers", "1"])
    ((program, arguments, environment),) = called
    assert program == sys.executable and arguments[1:4] == ["-m", "mlflow", "ui"]
    assert arguments[-2:] == ["--workers", "1"]
    assert environment["MLFLOW_BACKEND_STORE_URI"] == uri
    assert "hush" not in " ".join(arguments) + capsys.readouterr().out


def test_the_ui_reads_that_variable():
    from mlflow.cli import server

    (option,) = [one for one in server.params if one.name == "backend_store_uri"]
    assert option.envvar == "MLFLOW_BACKEND_STORE_URI"
