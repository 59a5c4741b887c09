"""Files on this machine: raypipe's home, checksums, gzip, locks."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
import stat
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

from raypipe.config import ConfigError, digest, near
from raypipe.progress import reading

_SHA256 = re.compile("[0-9a-f]{64}")
LONGEST_LINE = 64 << 20
"""Bytes of one line, unpacked: a gzip file of 3 MB may hold one of 3 GB."""
MOST_NAMES = 10_000
"""Names of a folder that are compared with one that is not there."""
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


def in_home(path: Path) -> bool:
    """Whether the path is raypipe's home or below it."""
    return path.is_relative_to(home())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; raypipe's home and its folders are their owner's alone."""
    top = home()
    if not in_home(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return
    top.mkdir(0o700, parents=True, exist_ok=True)
    _close(top)
    for depth in range(1, len(folder.relative_to(top).parts) + 1):
        top.joinpath(*folder.relative_to(top).parts[:depth]).mkdir(0o700, exist_ok=True)


def _close(folder: Path) -> None:
    """Take the rights of others from a home that is raypipe's own."""
    with contextlib.suppress(OSError):
        status = folder.stat()
        shared = status.st_mode & stat.S_ISVTX or folder in (Path.home(), Path(folder.anchor))
        if status.st_mode & 0o077 and status.st_uid == os.getuid() and not shared:
            folder.chmod(0o700)


def open_own(path: Path, mode: str, **options: Any) -> IO[Any]:
    """As `open`; a new file in raypipe's home is its owner's alone, whatever the umask."""
    rights = 0o600 if in_home(path) else 0o666
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, rights), **options)


def close_file(path: Path) -> None:
    """Take the rights of others from a file, if it is in raypipe's home."""
    if in_home(path):
        path.chmod(0o600)


def close_new_files() -> None:
    """From now on, what this process and those that it starts create is their owner's alone."""
    os.umask(os.umask(0o077) | 0o077)


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
        make_folder(memo.parent)
        staged = memo.with_name(f"{key}.{uuid.uuid4().hex[:8]}")
        with open_own(staged, "w", encoding="utf-8") as out:
            out.write(checksum)  # a writer that dies here leaves no half of a checksum
        staged.replace(memo)
    return KnownFile(path, known_as, checksum)


def read_bounded(path: Path, what: str, most: int, remedy: str) -> bytes:
    """The file's content, unpacked.

    Raises:
        ConfigError: there are more than `most` bytes.
    """
    with open_bytes(path) as file:
        content: bytes = file.read(most + 1)
    if len(content) > most:
        raise ConfigError(
            f"{path}: expected {what} of at most {most:,} bytes, found more; check the path, "
            f"{remedy}"
        )
    return content


def note_once(memo: Path) -> None:
    """Leave an empty file that says a check was made; without one it is made again."""
    with contextlib.suppress(OSError):  # a home that cannot be written only costs time
        make_folder(memo.parent)
        memo.touch(0o600)


def signature(path: Path) -> Signature:
    """What tells a file's content from its earlier ones without reading it."""
    status = path.stat()
    times = status.st_mtime_ns, status.st_ctime_ns
    return status.st_dev, status.st_ino, status.st_size, *times


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
        if path.is_dir():
            raise ConfigError(f"{what} {text}: expected a file, found a folder; name a file in it")
        if not path.is_file():
            raise ConfigError(f"{what} {text}: not there{near_names(path)}")


def near_names(path: Path, pattern: str = "*") -> str:
    """The end of an error about a path that is not there: how to get a public file; or similar
    names in its folder, three at most; where that is not there either, names similar to the
    folder's.

    Args:
        pattern: of the names that may be meant.
    """
    from raypipe.public_files import sentence_on

    if (sentence := sentence_on(path)) is not None:
        return f"; {sentence}"
    folder = path.absolute().parent
    if not folder.is_dir():
        return near_names(folder, "*/")
    with contextlib.suppress(OSError):  # a folder that cannot be listed
        names = [entry.name for entry in islice(folder.glob(pattern), MOST_NAMES)]
        if close := [repr(name) for name in near(path.name, names, 3)]:
            meant = f"{', '.join(close[:-1])} or {close[-1]}" if close[1:] else close[0]
            return f"; did you mean {meant}?"
    return f"; check the path, nothing in {folder} has a similar name"


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


def numbered_lines(path: str | Path, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line with its end) of every line; no more than one is in memory.

    Raises:
        ConfigError: a line is longer than `LONGEST_LINE`.
    """
    for number, line in enumerate(iter(partial(stream.readline, LONGEST_LINE + 1), b""), start=1):
        if len(line) > LONGEST_LINE:
            raise ConfigError(
                f"{path}, line {number}: expected a line of at most {LONGEST_LINE:,} bytes, found "
                "a longer one; check the path, or break that line up"
            )
        yield number, line


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` between the processes of this node."""
    import fcntl

    with open_own(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
