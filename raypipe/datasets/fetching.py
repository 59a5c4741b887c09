"""Public files: fetched once, checked, packed as their names say."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO
from urllib.parse import quote

from raypipe.config import ConfigError
from raypipe.public_files import PublishedFile
from raypipe.storage.files import open_bytes

TIMEOUT_S = 60.0
"""Most seconds without a byte."""
_PIECE = 1 << 20


def fetch(file: PublishedFile, target: Path) -> None:
    """Fetch the file of a `url`, unless it is there; it appears whole and checked, or not at all.

    Raises:
        ConfigError: it cannot be fetched, or its content is another.
    """
    assert file.url is not None
    if target.is_file():
        check_content(file, target)
        return
    part = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    address = quote(file.url, safe=":/%")  # names of files hold times of day
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
            _write(answer, part, packed=target.suffix == ".gz")
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        part.unlink(missing_ok=True)
        raise ConfigError(
            f"{file.url} cannot be fetched ({error}); fetch it where there is a network, put it "
            f"at {target}, and run the same command again"
        ) from None
    try:
        check_content(file, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def check_content(file: PublishedFile, path: Path) -> tuple[int, str]:
    """Bytes and SHA-256 of a file's content, unpacked.

    Raises:
        ConfigError: they are not those that were published.
    """
    size, sha256 = 0, hashlib.sha256()
    with open_bytes(path) as stream:
        for piece in _pieces(stream):
            size += len(piece)
            sha256.update(piece)
    found = size, sha256.hexdigest()
    if file.size is not None and file.sha256 is not None and found != (file.size, file.sha256):
        raise ConfigError(
            f"{path}: expected {file.size:,} bytes with SHA-256 {file.sha256[:16]}, found "
            f"{size:,} with {found[1][:16]}; remove it and fetch it again from {file.url}"
        )
    return found


def _write(answer: IO[bytes], path: Path, packed: bool) -> None:
    with ExitStack() as opened:
        sink: IO[bytes] = opened.enter_context(path.open("wb"))
        if packed:  # no time inside: the same content is the same file
            sink = opened.enter_context(gzip.GzipFile("", "wb", fileobj=sink, mtime=0))
        shutil.copyfileobj(answer, sink, _PIECE)


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(_PIECE):
        yield piece
