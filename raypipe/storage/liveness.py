"""Who is writing an artifact now: every writer leaves its name in its attempt, and signs of life.

A writer renews `.alive` in its attempt's folder. Whoever asks compares the age of that file with
the storage's own clock, so that clocks of machines may differ. On the writer's own machine a dead
process is known at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from raypipe.storage.root import StorageRoot

LEASE_S = 60.0
"""A writer without a sign of life for so long counts as dead."""
_OLD_LEASE_S, _OLD_WAIT_S = 24 * 3600.0, 600.0
"""The same of a writer of raypipe 0.1, whose only signs are the files that it writes: nobody waits
for it after the second, and nobody removes its files before the first."""
_WRITER, _ALIVE, _ENDED = ".writer", ".alive", ".ended"
_UNREADABLE = (OSError, pa.ArrowException, ValueError, TypeError, KeyError, RecursionError)


@dataclass(frozen=True)
class Writer:
    """A process, by what distinguishes it from all others."""

    host: str
    pid: int
    kernel: str = ""
    """The machine's boot and the process's name space; empty where nobody knows them."""
    started: int = 0
    """Clock ticks between the machine's boot and the process's start."""

    @classmethod
    def this_process(cls) -> Writer:
        return cls(platform.node(), os.getpid(), _kernel(), _started(os.getpid()) or 0)

    def is_dead(self) -> bool:
        """Whether its end is certain, which only its own machine can tell."""
        known = bool(self.kernel) and self.kernel == _kernel()
        return known and _started(self.pid) != self.started

    def lives(self) -> bool:
        """Whether its life is certain, which only its own machine can tell."""
        return bool(self.kernel) and self.kernel == _kernel() and not self.is_dead()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _kernel() -> str:
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _started(pid: int) -> int | None:
    """A living process's `started`; None of a dead one. The clock of the machine may be set anew,
    so psutil's times of day do not serve."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None


@dataclass(frozen=True)
class AttemptState:
    """What an attempt's folder says of its writer."""

    folder: str
    """Its path on the storage's file system."""
    begun_ns: int
    """When the writer began, by the storage's clock."""
    alive: bool
    abandoned: bool
    """Whether nobody can be writing it; an attempt that is just beginning is not alive yet."""
    ended: bool
    """Whether its writer cannot come back: it said so, or its process is certainly dead."""
    writer: Writer | None
    """None: raypipe 0.1 wrote it, or its writer has just begun."""

    @property
    def order(self) -> tuple[int, str]:
        """Of the living writers of one artifact, the one with the smallest goes on."""
        return self.begun_ns, self.folder


def states(root: StorageRoot, folders: Sequence[str]) -> list[AttemptState]:
    """The states of attempts at one artifact, in the order of their beginning."""
    if not folders:
        return []
    now = _storage_time(root, folders[0].rpartition("/")[0])
    return sorted((_state(root, folder, now) for folder in folders), key=lambda s: s.order)


def _state(root: StorageRoot, folder: str, now_ns: int) -> AttemptState:
    """The state at a time by the storage's clock."""
    names = [f"{folder}/{name}" for name in (_WRITER, _ALIVE, _ENDED)]
    begun, alive, end = root.fs.get_file_info(names)
    if begun.type == pafs.FileType.NotFound:
        return _old_state(root, folder, now_ns)
    writer = _read(root, folder)
    ended = end.type == pafs.FileType.File or (writer is not None and writer.is_dead())
    silent_s = (now_ns - max(begun.mtime_ns, alive.mtime_ns or 0)) / 1e9
    # signs from the future: a clock was set back, and a living writer will soon give another
    late = silent_s > LEASE_S or (silent_s < -LEASE_S and not (writer and writer.lives()))
    gone = ended or late
    return AttemptState(folder, begun.mtime_ns, not gone, gone, ended, writer)


def _old_state(root: StorageRoot, folder: str, now_ns: int) -> AttemptState:
    """The state of an attempt without a writer's name."""
    infos = root.fs.get_file_info(pafs.FileSelector(folder, recursive=True, allow_not_found=True))
    times = [info.mtime_ns or 0 for info in infos if info.type == pafs.FileType.File]
    newest = max(times, default=root.fs.get_file_info(folder).mtime_ns or now_ns)
    silent_s = abs(now_ns - newest) / 1e9
    abandoned = silent_s > (_OLD_LEASE_S if times else LEASE_S)
    alive = bool(times) and silent_s <= _OLD_WAIT_S
    return AttemptState(folder, newest, alive, abandoned, abandoned, None)


def _storage_time(root: StorageRoot, folder: str) -> int:
    """Nanoseconds since 1970 by the storage's clock: the time of a new file there."""
    probe = f"{folder}/.time-{uuid.uuid4().hex[:8]}"
    try:
        _put(root, probe)
        return int(root.fs.get_file_info(probe).mtime_ns)
    except (OSError, pa.ArrowException):
        if not root.is_local:
            raise
        return time.time_ns()  # a full disk, or one that is only read, is this machine's or near
    finally:
        with contextlib.suppress(OSError):
            root.fs.delete_file(probe)


def _read(root: StorageRoot, folder: str) -> Writer | None:
    try:
        with root.fs.open_input_stream(f"{folder}/{_WRITER}") as stream:
            fields = json.loads(stream.read())
            return Writer(
                str(fields["host"]), int(fields["pid"]), str(fields["kernel"]), fields["started"]
            )
    except _UNREADABLE:
        return None


def _put(root: StorageRoot, path: str, data: bytes = b"alive\n") -> None:
    with root.fs.open_output_stream(path) as sink:
        sink.write(data)


def _put_name(root: StorageRoot, folder: str) -> None:
    """Write this process's name into its attempt. On a disk it is written beside the attempt and
    moved: of a process that died over it nobody would know that it is dead, and all would wait."""
    path = f"{folder}/{_WRITER}"
    begun = f"{folder.rpartition('/')[0]}/{_WRITER}-{uuid.uuid4().hex[:8]}"
    name = json.dumps(asdict(Writer.this_process())).encode()
    _put(root, begun if root.is_local else path, name)
    if root.is_local:
        root.fs.move(begun, path)


@dataclass
class Heartbeat:
    """A writer's name and signs of life in its attempt, from `with` to the end of the block."""

    root: StorageRoot
    folder: str
    lease: float = LEASE_S
    _over: threading.Event = field(default_factory=threading.Event)

    @cached_property
    def _thread(self) -> threading.Thread:
        return threading.Thread(target=self._renew, name="raypipe-alive", daemon=True)

    def __enter__(self) -> Heartbeat:
        _put_name(self.root, self.folder)
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError, pa.ArrowException):
            if self.there():
                _put(self.root, f"{self.folder}/{_ENDED}")

    def there(self) -> bool:
        """Whether the attempt has not been swept away."""
        return has_writer(self.root, self.folder)

    def _renew(self) -> None:
        while not self._over.wait(self.lease / 4):
            with contextlib.suppress(OSError, pa.ArrowException):  # the next try is in time
                if self.there():
                    _put(self.root, f"{self.folder}/{_ALIVE}")


def has_writer(root: StorageRoot, folder: str) -> bool:
    """Whether a writer's name is in the folder: it goes when the attempt is swept away."""
    info = root.fs.get_file_info(f"{folder}/{_WRITER}")
    return bool(info.type == pafs.FileType.File)
