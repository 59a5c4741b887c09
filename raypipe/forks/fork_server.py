"""The process that Ray's processes are forked from.

python -m raypipe.forks.fork_server LISTENER PIPE MODULE...

It imports the modules, then forks itself for each launcher that asks at LISTENER, a socket's file
descriptor, and tells the launcher how the fork ended. It has one thread of its own. It ends when
PIPE, a file descriptor, is closed at the other end, as that is when the job has ended.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import selectors
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_MOST = 4 << 20
"""Bytes of a request at most."""


class ForkServer:
    """Forks this process for launchers, and tells each launcher how its fork ended."""

    def __init__(self, listener: socket.socket, pipe: int) -> None:
        self._listener = listener
        self._pipe = pipe
        self._ready = selectors.DefaultSelector()
        self._launchers: dict[int, socket.socket] = {}
        """Of the forks that live, by process id."""
        self._wake, self._woken = os.pipe()
        os.set_blocking(self._woken, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for watched in (listener, pipe, self._wake):
            self._ready.register(watched, selectors.EVENT_READ)

    def serve(self) -> dict[str, Any] | None:
        """Fork until the pipe closes; in a fork, return the request that it was made for."""
        while True:
            events = [key.fileobj for key, _ in self._ready.select()]
            if self._pipe in events:
                shutil.rmtree(Path(self._listener.getsockname()).parent, ignore_errors=True)
                return None
            if self._wake in events:
                os.read(self._wake, 4096)
                self._tell_of_ended_forks()
            for pid, launcher in list(self._launchers.items()):
                if launcher in events:  # a launcher says nothing more: it has died
                    self._forget(pid)
                    os.kill(pid, signal.SIGKILL)
            if self._listener in events and (request := self._answer()) is not None:
                return request

    def _answer(self) -> dict[str, Any] | None:
        """Answer one launcher; in the fork, return its request."""
        launcher, _ = self._listener.accept()
        request, files = _received(launcher)
        pid = os.fork() if request is not None and _is_alike(request) else -1
        if pid == 0:
            self._leave(launcher, files)
            return request
        for file in files:
            os.close(file)
        with contextlib.suppress(OSError):
            launcher.sendall(b"forked\n" if pid > 0 else b"no\n")
        if pid > 0:
            self._launchers[pid] = launcher
            self._ready.register(launcher, selectors.EVENT_READ)
        else:
            launcher.close()
        return None

    def _leave(self, launcher: socket.socket, files: Sequence[int]) -> None:
        """In a fork: take the launcher's standard files, close all that the server opened."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, file in enumerate(files):
            os.dup2(file, number)
        for inherited in (self._wake, self._woken, self._pipe, *files):
            os.close(inherited)
        for opened in (launcher, *self._launchers.values(), self._listener, self._ready):
            opened.close()

    def _tell_of_ended_forks(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                if pid in self._launchers:
                    code = os.waitstatus_to_exitcode(status)
                    with contextlib.suppress(OSError):
                        self._launchers[pid].sendall(
                            f"{code if code >= 0 else 128 - code}\n".encode()
                        )
                    self._forget(pid)

    def _forget(self, pid: int) -> None:
        launcher = self._launchers.pop(pid)
        self._ready.unregister(launcher)
        launcher.close()


def _received(launcher: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """A launcher's request and its standard files; None from one that has died."""
    text, files = b"", list[int]()
    launcher.settimeout(5)
    with contextlib.suppress(OSError, ValueError):
        while not text.endswith(b"\n") and len(text) < _MOST:
            more, fds, _, _ = socket.recv_fds(launcher, 1 << 16, 3)
            files += fds
            if not more:
                break
            text += more
        return json.loads(text), files
    return None, files


_DECIDES = ("PYTHONPATH", "OMP_NUM_THREADS", "LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_CONF")
"""Variables that a process reads when it starts or imports."""


def _is_alike(request: dict[str, Any]) -> bool:
    """Whether a fork of this process is what the launcher would have started."""
    argv, environment = request["argv"], request["environment"]
    given = json.loads(_context(argv) or "{}")
    extended = {**environment, **given.get("env_vars", {})}
    return (
        "--language=PYTHON" in argv
        and request["executable"] == sys.executable
        and given.get("py_executable", sys.executable) == sys.executable
        and not any(given.get(name) for name in ("command_prefix", "override_worker_entrypoint"))
        and all(os.environ.get(name) == extended.get(name) for name in _DECIDES)
    )


def _context(argv: Sequence[str]) -> str:
    prefix = "--serialized-runtime-env-context="
    return next((word[len(prefix) :] for word in argv if word.startswith(prefix)), "")


def become(request: dict[str, Any]) -> None:
    """Do in this fork what Ray's `setup_worker.py` and the script behind it would do, or what
    `python -m` does."""
    os.setpgid(0, 0)
    os.setpriority(os.PRIO_PROCESS, 0, request["niceness"])
    os.umask(request["umask"])
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    for name, limits in request["limits"].items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, name), tuple(limits))
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.environ.pop("RAYPIPE_FORKS", None)
    ours = ("--serialized-runtime-env-context=", "--language=")
    script, *arguments = [word for word in request["argv"] if not word.startswith(ours)]
    variables = json.loads(_context(request["argv"]) or "{}").get("env_vars")
    if variables or Path(script).name == "default_worker.py":
        _prepare_ray(variables or {})
    sys.argv = [script, *arguments]
    if script == "-m":
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        return
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")


def _prepare_ray(variables: dict[str, str]) -> None:
    """Ray's core reads its variables once, so only a fork imports it."""
    import ray._private.utils
    from ray._private.runtime_env.context import update_envs

    update_envs(variables)
    usual = ray._private.utils.set_omp_num_threads_if_unset

    def with_torch() -> bool:
        """torch read the variable when it was imported, and is told here."""
        done = usual()
        if done and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        return done

    ray._private.utils.set_omp_num_threads_if_unset = with_torch


def main(listener: int, pipe: int, modules: Sequence[str]) -> None:
    """Import the modules and serve; a fork goes on as what its launcher asked for."""
    for module in modules:
        with contextlib.suppress(ImportError):  # who needs it will say that it is missing
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a fork that looks for garbage leaves these pages to all
    request = ForkServer(socket.socket(fileno=listener), pipe).serve()
    if request is not None:
        become(request)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
