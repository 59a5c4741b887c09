"""A job's records for a tracking server, on disk until the server has taken them.

    <home>/spool/<job>/target.json     the server's address, masked, and the experiment
                       records.jsonl   one record per line, numbered from 0
                       files/<n>/      files of record n: links, or copies from other file systems
                       runs.json       the server's run ids by ours
                       sent            how many records the server has taken
                       lock            held by the process that sends
    <home>/spool/aside/<job>/          spools with records that cannot be sent

A record is on disk before anyone waits for the server. So a server that is away costs nothing, and
a killed job leaves its records to the next one. This module knows nothing of MLflow.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from raypipe.storage.files import home, make_folder, open_own
from raypipe.tracking.record import DAMAGED, Record, fields_of, is_damage, keep, line_of

_RECORDS, _TARGET, _RUNS, _SENT, _LOCK = (
    *("records.jsonl", "target.json", "runs.json", "sent", "lock"),
)
_TARGET_FIELDS = {"uri", "experiment", "artifact_root"}
_ASIDE = "aside"


class Spool:
    """The records of one job. One process appends and sends; another may only look."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._append = threading.Lock()
        self._lock: IO[str] | None = None
        self._stream: IO[bytes] | None = None
        self._is_torn = True  # whoever wrote before may have been killed in a line
        self._runs_noted = True
        self._has_damage = False
        self._read()

    def _read(self) -> None:
        self.sent, self.written, self._at, self._end = self._number(_SENT), 0, 0, 0
        for line in self._lines():
            self.written += 1
            self._end += len(line)
            if self.written <= self.sent:
                self._at = self._end
        if self.sent > self.written:  # a damaged note; what arrived is sent again
            self.sent = self._at = 0
        self.is_continued = self.written > 0
        """Whether the records, and what was sent of them, began in another process."""
        runs = self._json(_RUNS)
        items = runs.items() if isinstance(runs, dict) else ()
        self.runs: dict[str, str] = {run: own for run, own in items if isinstance(own, str)}

    @classmethod
    def create(
        cls, target: Mapping[str, Any], root: Path | None = None, name: str | None = None
    ) -> Spool:
        """A spool held by this process, new and empty.

        Args:
            name: of the folder; a spool that has this name already goes on, if nobody holds it.
        """
        folder = (root or spools()) / (name or new_name())
        make_folder(folder)
        folder.chmod(0o700)  # wherever it is: records hold what nobody else is to see
        spool = cls(folder)
        if not spool.hold():
            assert name is not None, "nobody else knows a new folder yet"
            return cls.create(target, root)
        if spool.problem():
            spool._put(_TARGET, json.dumps(dict(target)), sync=True)
        return spool

    @property
    def target(self) -> dict[str, Any]:
        """The target that `create` was given, if there is no `problem`."""
        content: dict[str, Any] = self._json(_TARGET)
        return content

    def problem(self) -> str:
        """Why records are lost or have no address, in words; empty if they can be sent."""
        target = self._json(_TARGET)
        if not isinstance(target, dict):
            return f"its {_TARGET} is damaged"
        if target.keys() != _TARGET_FIELDS or not all(isinstance(v, str) for v in target.values()):
            return f"its {_TARGET} is of another version of raypipe"
        traces = (_RECORDS, _SENT, _RUNS, "files")  # a job that wrote nothing leaves none of them
        if not self.written and any((self.folder / name).exists() for name in traces):
            return f"its {_RECORDS} is empty or gone"
        return ""

    @property
    def waiting(self) -> int:
        """The number of records that the server has not taken."""
        return self.written - self.sent

    def hold(self) -> bool:
        """Become the process that sends; False if another process is."""
        import fcntl

        handle = open_own(self.folder / _LOCK, "w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            return False
        self._lock = handle
        with contextlib.suppress(OSError):
            self._end_damage()
        self._read()  # the last holder may have written and sent since
        return True

    def _end_damage(self) -> None:
        """Make a damaged end of the records a line, so that it is counted and kept."""
        with (self.folder / _RECORDS).open("r+b") as stream:
            tail = b""
            for line in stream:
                tail = line
            if not tail.endswith(b"\n") and is_damage(tail):
                stream.write(b"\n")

    def append(
        self,
        verb: str,
        run: str,
        content: Mapping[str, Any],
        files: Mapping[str, Path | bytes] | None = None,
    ) -> None:
        """Write a record to the disk, where it outlives this process.

        Args:
            files: bytes, files or folders by the name that they get; callers may delete them
                afterwards.

        Raises:
            OSError: the disk is full or gone; nothing of the record is left.
        """
        line = line_of(verb, run, content)
        with self._append:
            kept = self.folder / "files" / str(self.written)
            shutil.rmtree(kept, ignore_errors=True)  # of a writer that was killed before the line
            try:
                for name, file in (files or {}).items():
                    keep(file, kept / name)
                self._write(line)
            except OSError:
                shutil.rmtree(kept, ignore_errors=True)
                raise
            self.written += 1

    def _write(self, line: bytes) -> None:
        if self._stream is None:
            self._stream = open_own(self.folder / _RECORDS, "ab", buffering=0)
        if self._is_torn:
            self._stream.truncate(self._end)
        self._is_torn = True
        if self._stream.write(line) != len(line):  # the part that still fitted
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        self._is_torn = False
        self._end += len(line)

    def unsent(self) -> Iterator[Record]:
        """Records that the server has not taken, in order, up to the last one written by now.

        A line that cannot be read is a record with the verb `DAMAGED`.
        """
        number, end, stop = self.sent, self._at, self._end
        for line in self._lines(end):
            if end >= stop:
                return
            end += len(line)
            fields = fields_of(line)
            self._has_damage |= fields["verb"] == DAMAGED
            kept = self.folder / "files" / str(number)
            files = tuple(sorted(kept.iterdir())) if kept.is_dir() else ()
            yield Record(number, fields["verb"], fields["run"], fields["content"], files, end)
            number += 1

    def took(self, record: Record, server_run: str | None = None) -> None:
        """Mark the first unsent record as taken by the server.

        A full disk may keep no note of it. Then a later process sends the record again, which the
        server knows.
        """
        assert record.number == self.sent, (record.number, self.sent)
        self.sent, self._at = self.sent + 1, record.end
        if server_run is not None and self.runs.get(record.run) != server_run:
            self.runs[record.run] = server_run
            self._runs_noted = False
        with contextlib.suppress(OSError):
            if not self._runs_noted:
                self._put(_RUNS, json.dumps(self.runs))
                self._runs_noted = True
            self._put(_SENT, str(self.sent))
        shutil.rmtree(self.folder / "files" / str(record.number), ignore_errors=True)

    def started(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Our id and the record's content of every run that was started, sent or not."""
        for fields in map(fields_of, self._lines()):
            if fields["verb"] == "start":
                yield fields["run"], fields["content"]

    def unfinished(self, below: str | None = None) -> list[str]:
        """Our ids of started runs that are not finished, children first.

        Args:
            below: only runs below this one; None is all.
        """
        runs: dict[str, None] = {}
        inside = {below}
        for fields in map(fields_of, self._lines()):
            if fields["verb"] == "start" and fields["content"].get("parent") in inside:
                runs[fields["run"]] = None
                inside.add(fields["run"])
            elif fields["verb"] == "finish":
                runs.pop(fields["run"], None)
        return list(reversed(runs))

    def set_aside(self) -> Path:
        """Move the folder to where nobody looks for records to send; its new place.

        Raises:
            OSError: it cannot be moved.
        """
        aside = self.folder.parent / _ASIDE / self.folder.name
        make_folder(aside.parent)
        self.folder.rename(aside)
        self.folder = aside
        return aside

    def close(self) -> None:
        """Let another process send; an empty spool disappears."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self.waiting == 0 and self._has_damage:
            with contextlib.suppress(OSError):
                self.set_aside()
        elif self.waiting == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let another process hold the spool."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _lines(self, start: int = 0) -> Iterator[bytes]:
        """Complete lines: a full disk or a process that was killed may have left half of one."""
        with contextlib.suppress(FileNotFoundError), (self.folder / _RECORDS).open("rb") as lines:
            lines.seek(start)
            for line in lines:
                if not line.endswith(b"\n"):
                    return
                yield line

    def _number(self, name: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return max(int((self.folder / name).read_text()), 0)
        return 0

    def _json(self, name: str) -> Any:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            return json.loads((self.folder / name).read_text("utf-8"))
        return None

    def _put(self, name: str, text: str, *, sync: bool = False) -> None:
        staged = self.folder / f".{name}"
        with open_own(staged, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            if sync:
                os.fsync(out.fileno())
        staged.replace(self.folder / name)


def spools() -> Path:
    """The folder of all spools on this machine."""
    return home() / "spool"


def is_spool(folder: Path) -> bool:
    """Whether there is a spool: a job that is making one has written nothing yet."""
    return (folder / _TARGET).exists() or (folder / _RECORDS).exists()


def new_name() -> str:
    """A name for a spool; names in order are spools in order of time."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
