"""Files on this machine: raypipe's home, checksums, locks."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raypipe.config import digest


def home() -> Path:
    """`$RAYPIPE_HOME`, default ~/.raypipe, absolute: storage and tracking default to it."""
    return Path(os.environ.get("RAYPIPE_HOME") or "~/.raypipe").expanduser().absolute()


def sha256(stream: Any) -> str:
    """Hexadecimal SHA-256 of a binary stream, which is closed."""
    total = hashlib.sha256()
    with stream:
        while block := stream.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, remembered in `$RAYPIPE_HOME/cache` by path, size and mtime."""
    stat = path.stat()
    key = digest([str(path.absolute()), stat.st_size, stat.st_mtime_ns], 32)
    memo = home() / "cache" / "checksums" / key
    with contextlib.suppress(OSError):
        return memo.read_text()
    found = sha256(path.open("rb"))
    with contextlib.suppress(OSError):  # a home that cannot be written only costs time
        memo.parent.mkdir(parents=True, exist_ok=True)
        memo.write_text(found)
    return found


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` between the processes of this node."""
    import fcntl

    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
