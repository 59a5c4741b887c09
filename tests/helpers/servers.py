"""Programs that service tests start and end: each on a free port, each named when it is missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

START_S = 300


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def program(*names: str) -> str:
    """The first of these programs that is there; skips the test by name otherwise."""
    for name in names:
        if found := shutil.which(name):
            return found
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if found := shutil.which(names[0], path=str(folder)):
            return found
    pytest.skip(f"needs the program {names[0]}")


def until(ready: Callable[[], bool], process: subprocess.Popen, seconds: float = START_S) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        assert time.monotonic() < deadline, f"{process.args} is not ready after {seconds} s"
        time.sleep(0.2)


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as reply:
        return reply.status < 500
    return False


def end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def mlflow_server(
    folder: Path, port: int, backend: str, program: Sequence[str] = (sys.executable, "-m", "mlflow")
) -> Iterator[subprocess.Popen]:
    """`mlflow server` on this port, until the block ends."""
    command = [*program, "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--backend-store-uri", backend]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/health"), process)
        yield process
    finally:
        end_group(process)


def end_group(process: subprocess.Popen) -> None:
    """A server and its workers, which ask the same port."""
    import signal

    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL of our own with one empty database; gives its SQLAlchemy address."""
    initdb, server = program("initdb"), program("postgres")
    as_root = os.geteuid() == 0  # which PostgreSQL refuses to run as
    user = ["runuser", "-u", "postgres", "--"] if as_root else []
    data, port = folder / "pg", free_port()
    data.mkdir()
    if as_root:
        shutil.chown(data, "postgres")
        for parent in [data, *data.parents]:
            if parent != Path("/") and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    quiet = {"check": True, "capture_output": True, "cwd": "/"}
    subprocess.run([*user, initdb, "-D", data, "-U", "raypipe", "-A", "trust", "-N"], **quiet)
    command = [*user, server, "-D", str(data), "-p", str(port), "-k", str(data), "-F"]
    command += ["-c", "listen_addresses=127.0.0.1"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
    )
    try:
        until(lambda: _listens(port), process)
        create = [program("createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "raypipe"]
        subprocess.run([*create, "mlflow"], **quiet)
        yield f"postgresql+psycopg2://raypipe@127.0.0.1:{port}/mlflow"
    finally:
        end(process)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
