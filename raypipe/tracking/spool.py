"""What a job has to say to a tracking server, on disk until the server has taken it.

    <home>/spool/<job>/target.json     where it goes
                       records.jsonl   one record per line, numbered from 0
                       files/<n>/      files of record n: links, or copies from other file systems
                       runs.json       our run ids to the server's
                       sent            how many records the server has taken
                       lock            held by the process that sends

A record is written before anyone waits for it, so a server that is away costs nothing, and a job
that was killed leaves its records to the next one. No module here knows MLflow.
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
    """Our id of the run that it belongs to."""
    content: Mapping[str, Any]
    """JSON values."""
    files: tuple[Path, ...] = ()
    end: int = 0
    """Where the next record begins, in bytes."""


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
        """A new, empty one, held by this process."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        folder = (root or spools()) / f"{stamp}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(0o700, parents=True)  # the target's address may hold a password
        spool = cls(folder)
        held = spool.hold()
        assert held, "nobody else knows the folder yet"
        spool._put(_TARGET, json.dumps(dict(target)))
        return spool

    @property
    def target(self) -> dict[str, Any]:
        """As given to `create`; empty if its writer died before it was written."""
        return self._json(_TARGET) or {}

    @property
    def waiting(self) -> int:
        """Records that the server has not taken."""
        return self.written - self.sent

    def hold(self) -> bool:
        """Become the process that sends; False if another one is it."""
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
        """Write a record down; it outlives this process.

        Args:
            files: by the name that they get; files or folders, which may be deleted afterwards.

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
        """Records that the server has not taken, in order, to the end of what is written now."""
        number, end = self.sent, self._at
        for line in self._lines(end):
            one, end = json.loads(line), end + len(line)
            kept = self.folder / "files" / str(number)
            files = tuple(sorted(kept.iterdir())) if kept.is_dir() else ()
            yield Record(number, one["verb"], one["run"], one["content"], files, end)
            number += 1

    def took(self, record: Record, server_run: str | None = None) -> None:
        """The server has taken this record, the first unsent one."""
        assert record.number == self.sent, (record.number, self.sent)
        if server_run is not None:
            self.runs[record.run] = server_run
            self._put(_RUNS, json.dumps(self.runs))
        self.sent, self._at = self.sent + 1, record.end
        self._put(_SENT, str(self.sent))
        shutil.rmtree(self.folder / "files" / str(record.number), ignore_errors=True)

    def unfinished(self, below: str | None = None) -> list[str]:
        """Our ids of runs that were started and not finished, children first: all, or those below
        one of them."""
        runs: dict[str, None] = {}
        inside = {below}
        for line in self._lines():
            one = json.loads(line)
            if one["verb"] == "start" and one["content"].get("parent") in inside:
                runs[one["run"]] = None
                inside.add(one["run"])
            elif one["verb"] == "finish":
                runs.pop(one["run"], None)
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
            found: dict[str, Any] = json.loads((self.folder / name).read_text())
            return found
        return None

    def _put(self, name: str, text: str) -> None:
        staged = self.folder / f".{name}"
        staged.write_text(text)
        staged.replace(self.folder / name)


def spools() -> Path:
    """Where they are on this machine."""
    return home() / "spool"


def left_behind(root: Path | None = None) -> list[Spool]:
    """Spools of jobs that are gone, held by this process now, oldest first."""
    folder = root or spools()
    found = []
    for one in sorted(folder.iterdir()) if folder.is_dir() else []:
        if (one / _TARGET).is_file():
            spool = Spool(one)
            if spool.hold():
                found.append(spool)
    return found


def _keep(source: Path, target: Path) -> None:
    """A link, which costs nothing; a copy where the file may change or lies elsewhere."""
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
