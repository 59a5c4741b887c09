"""Files on this machine: raypipe's home, checksums, gzip or not, locks."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
import uuid
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from raypipe.config import ConfigError, digest, nearest
from raypipe.progress import reading

_SHA256 = re.compile("[0-9a-f]{64}")
_URI = re.compile(r"([A-Za-z][\w+.-]*://)(\S*)")


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
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if _SHA256.fullmatch(remembered := memo.read_text("utf-8")):
            return remembered
    found = sha256(path.open("rb"))
    with contextlib.suppress(OSError):  # a home that cannot be written only costs time
        memo.parent.mkdir(parents=True, exist_ok=True)
        staged = memo.with_name(f"{key}.{uuid.uuid4().hex[:8]}")
        staged.write_text(found, "utf-8")  # a writer that dies here leaves no half of a checksum
        staged.replace(memo)
    return found


def checksums(paths: Sequence[str]) -> list[str]:
    """SHA-256 of every file; `~` is the user's home."""
    return [file_checksum(Path(path).expanduser()) for path in paths]


def full_paths(paths: Sequence[str]) -> list[str]:
    """Absolute, for people who look for the file; `~` is the user's home."""
    return [str(Path(path).expanduser().absolute()) for path in paths]


def without_secrets(text: str) -> str:
    """Every URI in it without user, password, query and fragment, where keys may stand.

    A password may hold `@`, `/`, `?` and `#` as they are, so what looks like one is cut although a
    parser would take it for host, path or query. A path without a scheme stays as it is.
    """
    return _URI.sub(lambda found: found[1] + _without_secrets(found[2]), text)


def _without_secrets(rest: str) -> str:
    """Of what follows `://`."""
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
    """What to say of a gzip file that ends early or cannot be unpacked."""
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


def check_files(paths: Sequence[str], what: str = "run file") -> None:
    """Every path is a file; the error names the nearest one beside it."""
    for text in paths:
        path = Path(text).expanduser()
        if not path.is_file():
            beside = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
            raise ConfigError(f"{what} {text}: not there{nearest(path.name, beside)}")
