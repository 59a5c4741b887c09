"""Files on this machine: raypipe's home, checksums, addresses to show, gzip, locks."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from raypipe.config import ConfigError, digest, nearest
from raypipe.progress import reading

_SHA256 = re.compile("[0-9a-f]{64}")
_URI = re.compile(r"([A-Za-z][\w+.-]*://)(\S*)")
_TICK_S = 0.02
"""File systems tell the time of a change in ticks; the longest usual one is 10 ms, or a second."""

Signature = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime: no write leaves all five as they were."""


@dataclass(frozen=True)
class KnownFile:
    """A file of the user's as it was when its checksum was taken."""

    path: Path
    signature: Signature
    checksum: str


_collected: ContextVar[dict[Path, KnownFile] | None] = ContextVar("collected", default=None)


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
    """SHA-256 of a file, remembered in `$RAYPIPE_HOME/cache` by its signature.

    Raises:
        ConfigError: something writes the file at this moment, or it is a pipe or a device.
    """
    known = known_file(path)
    if (files := _collected.get()) is not None:
        files[known.path] = known
    return known.checksum


@contextlib.contextmanager
def collected() -> Iterator[dict[Path, KnownFile]]:
    """In the body, the files whose checksum is asked for, by absolute path."""
    files: dict[Path, KnownFile] = {}
    token = _collected.set(files)
    try:
        yield files
    finally:
        _collected.reset(token)


def known_file(path: Path) -> KnownFile:
    """As `file_checksum`, with the signature that the checksum belongs to."""
    path = path.absolute()
    known_as = _settled(path)
    if path.is_fifo() or path.is_char_device():  # neither need have an end
        raise ConfigError(
            f"{path}: expected a file, found a pipe or device; put a file with its content there"
        )
    key = digest(list(known_as), 32)
    memo = home() / "cache" / "checksums" / key
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if _SHA256.fullmatch(remembered := memo.read_text("utf-8")):
            return KnownFile(path, known_as, remembered)
    checksum = sha256(path.open("rb"))
    if signature(path) != known_as:
        raise ConfigError(
            f"{path}: expected a finished file, found one that is being written; run the command "
            "again when it is complete"
        )
    with contextlib.suppress(OSError):  # a home that cannot be written only costs time
        memo.parent.mkdir(parents=True, exist_ok=True)
        staged = memo.with_name(f"{key}.{uuid.uuid4().hex[:8]}")
        staged.write_text(checksum, "utf-8")  # a writer that dies here leaves no half of a checksum
        staged.replace(memo)
    return KnownFile(path, known_as, checksum)


def note_once(memo: Path) -> None:
    """Leave an empty file that says a check was made; without one it is made again."""
    with contextlib.suppress(OSError):  # a home that cannot be written only costs time
        memo.parent.mkdir(parents=True, exist_ok=True)
        memo.touch()


def signature(path: Path) -> Signature:
    """What tells a file's content from its earlier ones without reading it."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _settled(path: Path) -> Signature:
    """The signature, when the tick of the last change is over: a later change has another ctime."""
    found = signature(path)
    tick_s = _TICK_S if found[-1] % 10**9 else 1.0
    age_s = time.time() - found[-1] / 1e9
    if 0 <= age_s < tick_s:
        time.sleep(tick_s - age_s)
    return found


def checksums(paths: Sequence[str]) -> list[str]:
    """SHA-256 of every file; `~` is the user's home."""
    return [file_checksum(Path(path).expanduser()) for path in paths]


def full_paths(paths: Sequence[str]) -> list[str]:
    """Absolute paths, for people who look for the files; `~` is the user's home."""
    return [str(Path(path).expanduser().absolute()) for path in paths]


def check_files(paths: Sequence[str], what: str = "run file") -> None:
    """Refuse a path that is no file; `~` is the user's home.

    Raises:
        ConfigError: the first such path, with the nearest name beside it.
    """
    for text in paths:
        path = Path(text).expanduser()
        if not path.is_file():
            neighbours = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
            near = nearest(path.name, neighbours) or "; check the path, its folder is empty or gone"
            raise ConfigError(f"{what} {text}: not there{near}")


def without_secrets(text: str) -> str:
    """The text, each URI in it cut to scheme, host and path: keys may stand in the other parts.

    A password may hold `@`, `/`, `?` and `#` unescaped, so what looks like a password is cut even
    where a parser would read host, path or query. A path without a scheme stays as it is.
    """
    return _URI.sub(lambda uri: uri[1] + _host_and_path(uri[2]), text)


def _host_and_path(rest: str) -> str:
    """Host and path of what follows `://`."""
    address = rest.partition("?")[0]
    if ":" in address and "@" not in address:  # the question mark may be the password's
        address = rest
    user, _, host = address.rpartition("@")
    if "/" in user and ":" not in user:  # the `@` is in a path
        host = address
    return re.split("[?#]", host)[0]


def packed(path: str | Path) -> bool:
    """Whether the file is gzipped, whatever its name."""
    with open(path, "rb") as raw:
        return raw.read(2) == b"\x1f\x8b"


def damaged(path: str | Path, error: Exception) -> ConfigError:
    """The error of a gzip file that ends early or cannot be unpacked."""
    return ConfigError(
        f"{path}: expected a complete gzip file, found {error}; "
        "it is truncated or damaged, fetch it again"
    )


@contextlib.contextmanager
def open_bytes(path: str | Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked if it is gzipped.

    Raises:
        ConfigError: the gzip file is truncated or damaged.
    """
    zipped = packed(path)
    with open(path, "rb") as raw, reading(raw) as file:
        try:
            yield io.BufferedReader(gzip.GzipFile(fileobj=file)) if zipped else file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise damaged(path, error) from None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` between the processes of this node."""
    import fcntl

    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
