"""`python -m raypipe.tracking`."""

from __future__ import annotations

import os
import socket
import sys

import pytest

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


@pytest.fixture
def ui(monkeypatch, tmp_path, capsys):
    """Opens the UI with these arguments: what starts, and what is printed."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")

    def open_ui(*arguments: str) -> tuple[int | None, list[str], str, str]:
        called: list[list[str]] = []
        monkeypatch.setattr(os, "execve", lambda program, words, environment: called.append(words))
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, (called or [[]])[0], said.out, said.err

    return open_ui


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("form", ["--port {}", "--port={}", "-p {}"])
def test_the_ui_says_the_port_that_it_is_told(ui, form):
    port = free_port()
    _, words, out, _ = ui(*form.format(port).split(), "--workers", "1")
    assert f"http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning\n" in out
    assert words.count("--port") == 1 and words[words.index("--port") + 1] == str(port)
    assert words[-2:] == ["--workers", "1"]


def test_a_port_that_is_taken_is_an_error_at_once(ui):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, words, out, err = ui("--port", str(port))
    assert (code, words, out) == (2, [], "")
    assert err.startswith(f"error: --port {port}: 127.0.0.1 has no such port free; name another")


@pytest.mark.parametrize("port", ["0", "65536", "five", "-1", "5_000", "\u0665\u0660", "9" * 5000])
def test_what_is_no_port_is_refused(ui, port, capsys):
    with pytest.raises(SystemExit) as stopped:
        ui(f"--port={port}")
    assert stopped.value.code == 2
    assert "--port/-p: expected a number from 1 to 65535, found" in capsys.readouterr().err
