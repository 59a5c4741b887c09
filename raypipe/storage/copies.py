"""A copy of a remote folder on this node: its files, its marker, and whether it is still whole."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow.fs as pafs

from raypipe.config import ConfigError
from raypipe.storage.files import close_file, make_folder, open_own, sha256, signature


class CopyError(ConfigError, OSError):
    """A folder cannot be copied to this node; the text says why, and what to do."""


@dataclass(frozen=True)
class RemoteFolder:
    """A committed folder on a file system that is not this machine's."""

    fs: pafs.FileSystem
    base: str
    """The folder's path on `fs`."""
    path: str
    """The copy's path below the cache: <kind>/<name>-<digest>/<attempt>."""
    files: Mapping[str, Mapping[str, Any]]
    """By name: `size` in bytes and `sha256`, as committed."""
    shown: str
    """The folder's address for people."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(meta["size"] for meta in self.files.values())


@dataclass(frozen=True)
class Copy:
    """A copy in the cache, which may not be there.

    One process of the node at a time calls its methods (cache).
    """

    folder: Path

    @property
    def marker(self) -> Path:
        return self.folder.with_suffix(".lock")

    @property
    def part(self) -> Path:
        """Holds the files until all are there and checked, and again while they are removed."""
        return self.folder.with_suffix(".part")

    @property
    def seen(self) -> Path:
        """By file: size, inode and times when its checksum was last computed."""
        return self.folder.with_suffix(".seen")

    @property
    def size(self) -> int:
        """Bytes that the copy has or will have.

        A marker of raypipe 0.1 is empty, and a loss of power may leave any bytes in one.
        """
        with contextlib.suppress(ValueError):
            if (size := int(self.marker.read_text("utf-8"))) >= 0:
                return size
        return self.written

    @property
    def written(self) -> int:
        """Bytes that are on the disk already."""
        folder = self.folder if self.whole() else self.part
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    @property
    def last_use(self) -> int:
        return self.marker.stat().st_mtime_ns

    def whole(self) -> bool:
        """Whether all files are there and were checked."""
        return self.folder.is_dir()

    def in_use(self) -> bool:
        """Whether a living process uses the copy, fills it, or waits for it."""
        with self.marker.open("a+") as marker:
            return not lock(marker, exclusive=True)

    def discard(self) -> None:
        """Remove the files and the marker."""
        self.clear()
        self.marker.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: the copy of another attempt
            self.folder.parent.rmdir()

    def clear(self) -> None:
        """Remove the files, and whatever else stands in their place.

        What a process that dies here leaves is not `whole`.
        """
        _remove(self.part)
        with contextlib.suppress(FileNotFoundError):
            self.folder.rename(self.part)
        _remove(self.part)
        _remove(self.seen)


def lock(marker: IO[str], *, exclusive: bool, wait: bool = False) -> bool:
    """Lock the marker for this handle; False if another handle's lock forbids it."""
    import fcntl

    how = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(marker, how if wait else how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def mend(copy: Copy, remote: RemoteFolder) -> None:
    """Fetch files again that are gone or no longer what was committed.

    A process that has such a file open keeps what it has; the new file takes its name.
    """
    seen = _remembered(copy)
    changed = [name for name in remote.files if _traits(copy.folder / name) != seen.get(name)]
    for name in changed:
        path = copy.folder / name
        with contextlib.suppress(OSError):
            if path.is_file():  # to open a pipe would wait for its writer
                _check(path, remote, name)
                continue
        staged = copy.folder / f".again-{uuid.uuid4().hex[:8]}"
        try:
            fetch(remote, name, staged)
            _make_way(path, copy.folder)
            staged.replace(path)
        finally:
            staged.unlink(missing_ok=True)
    if changed:
        remember(copy, remote)


def fetch(remote: RemoteFolder, name: str, path: Path) -> None:
    """Copy one file of the folder to `path`, for its owner alone.

    Raises:
        CopyError: the file in the storage does not have its committed checksum.
    """
    make_folder(path.parent)
    pafs.copy_files(f"{remote.base}/{name}", str(path), remote.fs, pafs.LocalFileSystem())
    close_file(path)
    _check(path, remote, name)


def _check(path: Path, remote: RemoteFolder, name: str) -> None:
    expected = remote.files[name]["sha256"]
    if (checksum := sha256(path.open("rb"))) != expected:
        raise CopyError(
            f"{remote.shown}/{name} does not have its committed checksum: expected {expected}, "
            f"found {checksum}; run the command again, and if the file in the storage is damaged "
            "remove the artifact, then raypipe makes it anew"
        )


def remember(copy: Copy, remote: RemoteFolder) -> None:
    """Note that every file of the copy has its checksum now."""
    traits = {name: _traits(copy.folder / name) for name in remote.files}
    _remove(copy.seen)
    with open_own(copy.seen, "w", encoding="utf-8") as out:
        out.write(json.dumps(traits))


def _traits(path: Path) -> list[int] | None:
    """What changes when a file does, as JSON has it; None without a file."""
    try:
        return list(signature(path))
    except OSError:
        return None


def _remembered(copy: Copy) -> dict[str, Any]:
    """What `remember` noted; empty if that cannot be read, then every checksum is computed anew."""
    try:
        seen = json.loads(copy.seen.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return seen if isinstance(seen, dict) else {}


def _make_way(path: Path, folder: Path) -> None:
    """Remove what stands below `folder` where the file, or a folder above it, has to be."""
    above = [parent for parent in path.parents if parent.is_relative_to(folder)]
    for parent in reversed(above):
        if not parent.is_dir():
            _remove(parent)
    make_folder(path.parent)
    if path.is_dir():
        _remove(path)


def _remove(path: Path) -> None:
    """Remove a folder, a file, a link, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
