"""The lines of a data set's text files, with their numbers for errors."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError
from raypipe.names import quoted
from raypipe.progress import reading
from raypipe.storage.files import numbered_lines, packed


def numbered(path: Path, *, blank: bool = False) -> Iterator[tuple[int, str]]:
    """Lines numbered from 1; read as bytes, so that errors name their line.

    Args:
        blank: whether blank lines are among them.
    """
    number = 0
    try:
        with (
            path.open("rb") as raw,
            reading(raw) as tracked,
            gzip.open(tracked) if packed(path) else nullcontext(tracked) as file,
        ):
            for number, line in numbered_lines(path, file):
                if blank or line.strip():
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        bad = error.object[error.start : error.start + 1]
        raise ConfigError(wrong(path, number, "UTF-8", bad, "convert the file to UTF-8")) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ConfigError(
            f"{path}: the gzip data is damaged after line {number} ({error}); copy the file again"
        ) from None


def wrong(path: Path, number: int, expected: str, found: Any, remedy: str = "correct it") -> str:
    """The error of a line."""
    return f"{path}:{number}: expected {expected}, found {quoted(found, 120)}; {remedy}"
