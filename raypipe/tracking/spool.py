"""A job's records for a tracking server, on disk until the server has taken them.

    <home>/spool/<job>/target.json     the server's address and the experiment
                       records.jsonl   one record per line, numbered from 0
                       files/<n>/      files of record n: links, or copies from other file systems
                       runs.json       the server's run ids by ours
                       sent            how many records the server has taken
                       lock            held by the process that sends

A record is on disk before anyone waits for the server. So a server that is away costs nothing, and
a killed job leaves its records to the next one. This module knows nothing of MLflow.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from raypipe.storage.files import home

_RECORDS, _TARGET, _RUNS, _SENT, _LOCK = (
    *("records.jsonl", "target.json", "runs.json", "sent", "lock"),
)


@dataclass(frozen=True)
class Record:
    """One thing to tell the server."""

    number: int
    verb: str
    run: str
    """Our id of the run that the record belongs to."""
    content: Mapping[str, Any]
    """The verb's arguments, as JSON values."""
    files: tuple[Path, ...] = ()
    end: int = 0
    """The offset in bytes at which the next record begins."""


class Spool:
    """The records of one job. One process appends and sends; another may only look."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._append = threading.Lock()
        self._lock: IO[str] | None = None
        self._stream: IO[bytes] | None = None
        self.sent = self._number(_SENT)
        self.written = self._at = 0
        for line in self._lines():
            self.written += 1
            if self.written <= self.sent:
                self._at += len(line)
        self.runs: dict[str, str] = self._json(_RUNS) or {}

    @classmethod
    def create(cls, target: Mapping[str, Any], root: Path | None = None) -> Spool:
        """A new, empty spool, held by this process."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        folder = (root or spools()) / f"{stamp}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(0o700, parents=True)  # the target's address may hold a password
        spool = cls(folder)
        is_held = spool.hold()
        assert is_held, "nobody else knows the folder yet"
        spool._put(_TARGET, json.dumps(dict(target)))
        return spool

    @property
    def target(self) -> dict[str, Any]:
        """The target that `create` was given; empty if the writer died before it stood on disk."""
        return self._json(_TARGET) or {}

    @property
    def waiting(self) -> int:
        """The number of records that the server has not taken."""
        return self.written - self.sent

    def hold(self) -> bool:
        """Become the process that sends; False if another process is."""
        import fcntl

        handle = (self.folder / _LOCK).open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            return False
        self._lock = handle
        return True

    def append(
        self,
        verb: str,
        run: str,
        content: Mapping[str, Any],
        files: Mapping[str, Path] | None = None,
    ) -> None:
        """Write a record to the disk, where it outlives this process.

        Args:
            files: files or folders by the name that they get; callers may delete them afterwards.

        Raises:
            OSError: the disk is full or gone.
        """
        with self._append:
            kept = self.folder / "files" / str(self.written)
            for name, file in (files or {}).items():
                _keep(file, kept / name)
            line = json.dumps({"verb": verb, "run": run, "content": dict(content)})
            if self._stream is None:
                self._stream = self._opened()
            self._stream.write(line.encode() + b"\n")
            self._stream.flush()
            self.written += 1

    def unsent(self) -> Iterator[Record]:
        """Records that the server has not taken, in order, up to the last one written by now."""
        number, end = self.sent, self._at
        for line in self._lines(end):
            fields, end = json.loads(line), end + len(line)
            kept = self.folder / "files" / str(number)
            files = tuple(sorted(kept.iterdir())) if kept.is_dir() else ()
            yield Record(number, fields["verb"], fields["run"], fields["content"], files, end)
            number += 1

    def took(self, record: Record, server_run: str | None = None) -> None:
        """Mark the first unsent record as taken by the server."""
        assert record.number == self.sent, (record.number, self.sent)
        if server_run is not None:
            self.runs[record.run] = server_run
            self._put(_RUNS, json.dumps(self.runs))
        self.sent, self._at = self.sent + 1, record.end
        self._put(_SENT, str(self.sent))
        shutil.rmtree(self.folder / "files" / str(record.number), ignore_errors=True)

    def unfinished(self, below: str | None = None) -> list[str]:
        """Our ids of started runs that are not finished, children first.

        Args:
            below: only runs below this one; None is all.
        """
        runs: dict[str, None] = {}
        inside = {below}
        for line in self._lines():
            fields = json.loads(line)
            if fields["verb"] == "start" and fields["content"].get("parent") in inside:
                runs[fields["run"]] = None
                inside.add(fields["run"])
            elif fields["verb"] == "finish":
                runs.pop(fields["run"], None)
        return list(reversed(runs))

    def close(self) -> None:
        """Let another process send; an empty spool disappears."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self.waiting == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _lines(self, start: int = 0) -> Iterator[bytes]:
        """Complete lines: a process that was killed may have left half of one."""
        with contextlib.suppress(FileNotFoundError), (self.folder / _RECORDS).open("rb") as lines:
            lines.seek(start)
            for line in lines:
                if line.endswith(b"\n"):
                    yield line

    def _opened(self) -> IO[bytes]:
        stream = (self.folder / _RECORDS).open("ab")
        stream.truncate(sum(len(line) for line in self._lines()))
        return stream

    def _number(self, name: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int((self.folder / name).read_text())
        return 0

    def _json(self, name: str) -> dict[str, Any] | None:
        with contextlib.suppress(OSError, ValueError):
            content: dict[str, Any] = json.loads((self.folder / name).read_text())
            return content
        return None

    def _put(self, name: str, text: str) -> None:
        staged = self.folder / f".{name}"
        staged.write_text(text)
        staged.replace(self.folder / name)


def spools() -> Path:
    """The folder of all spools on this machine."""
    return home() / "spool"


def left_behind(root: Path | None = None) -> list[Spool]:
    """Spools of dead jobs, oldest first; from now on this process holds them."""
    parent = root or spools()
    held = []
    for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
        if (folder / _TARGET).is_file():
            spool = Spool(folder)
            if spool.hold():
                held.append(spool)
    return held


def _keep(source: Path, target: Path) -> None:
    """Link a file or the files of a folder; copy them where the file system has no links."""
    if source.is_dir():
        for file in source.rglob("*"):
            if file.is_file():
                _keep(file, target / file.relative_to(source))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
