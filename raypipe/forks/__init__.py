"""Ray's processes on this machine, forked from one that has imported the libraries.

A process that Ray starts imports Ray twice, torch and transformers: seven seconds of a CPU, more
than a short stage needs. So a job that starts a Ray of its own also starts a server, which imports
once (fork_server.py). Ray is told to start processes by launcher.py, which asks the server for a
fork of itself; what a fork could not be, the launcher starts as Ray would have.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

SOCKET = "RAYPIPE_FORKS"
"""Environment variable: the server's socket, in the processes that Ray starts while it is set; "0",
set by a user: processes start as Ray starts them."""

_LAUNCHER = Path(__file__).with_name("launcher.py")
_servers: list[tuple[str, int]] = []
"""This process's server, if it was started: its socket, and a pipe that it ends with."""


def can_fork() -> bool:
    """Whether forks are used here: on Linux, without a GPU, and unless RAYPIPE_FORKS=0.

    A card's driver does not outlive a fork; without one to try it on, nothing is promised.
    """
    return (
        sys.platform == "linux"
        and os.environ.get(SOCKET) != "0"
        and not any(Path("/dev").glob("nvidia[0-9]*"))
    )


@contextlib.contextmanager
def forked_workers(modules: Sequence[str]) -> Iterator[None]:
    """A Ray that starts within this block forks its processes.

    Args:
        modules: what the server imports if none was started yet. It ends with this process.
    """
    from ray._private import ray_constants

    import_ahead(modules)
    if not _servers:
        yield
        return
    usual = ray_constants.SETUP_WORKER_FILENAME
    os.environ[SOCKET], _ = _servers[0]
    # joined to the folder of Ray's own script, which an absolute path leaves out
    ray_constants.SETUP_WORKER_FILENAME = str(_LAUNCHER)
    try:
        yield
    finally:
        ray_constants.SETUP_WORKER_FILENAME = usual
        del os.environ[SOCKET]


def import_ahead(modules: Sequence[str]) -> None:
    """Start the server for a Ray that will start here, unless it was started; returns at once."""
    import socket
    import subprocess

    if _servers or not can_fork():
        return
    folder = tempfile.mkdtemp(prefix="raypipe-forks-")  # of mode 0700
    address = f"{folder}/socket"
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(address)
        except OSError:  # the path is too long for a socket, or its disk has none
            shutil.rmtree(folder)
            return
        listener.listen(128)  # launchers that come early wait in this queue
        reading, kept_open = os.pipe()  # which closes when this process has ended
        given = [listener.fileno(), reading]
        subprocess.Popen(
            [sys.executable, "-m", "raypipe.forks.fork_server", *map(str, given), *modules],
            pass_fds=given,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # it says nothing that the forks will not say
            process_group=0,  # Ctrl-C is for the job
        )
    os.close(reading)
    _servers.append((address, kept_open))


def forked(module: str) -> tuple[list[str], dict[str, str]]:
    """A command that runs a module in a fork, where a server was started, and its environment."""
    if not _servers:
        return [sys.executable, "-m", module], dict(os.environ)
    words = ["--serialized-runtime-env-context={}", "--language=PYTHON", "-m", module]
    return [sys.executable, str(_LAUNCHER), *words], {**os.environ, SOCKET: _servers[0][0]}


def end_server() -> None:
    """End this process's server, when no Ray of its own will start; begun forks go on."""
    while _servers:
        os.close(_servers.pop()[1])
