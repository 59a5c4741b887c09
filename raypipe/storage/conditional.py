"""Small files that one of several writers creates, or replaces while nobody else has.

A manifest is such a file: whoever creates it commits the artifact. On a disk a finished file gets
its name by a hard link, which fails if the name is taken; object stores refuse a PUT whose
condition does not hold (If-None-Match, If-Match).
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raypipe.storage.files import locked, make_folder, open_own


class ConditionalFiles(Protocol):
    """Files below a storage root; every path is relative to it."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a file that is not there; False, and nothing changed, if it is there."""
        ...

    def replace(self, path: str, data: bytes, seen: bytes) -> bool:
        """Write a file whose content is `seen`; False, and nothing changed, if it is another."""
        ...


@dataclass(frozen=True)
class DiskFiles:
    """On a file system of this machine, which may be a network mount."""

    root: Path

    def create(self, path: str, data: bytes) -> bool:
        target = self.root / path
        make_folder(target.parent)
        with _staged(target, data) as staged:
            try:
                created = _linked(staged, target)
            except OSError:  # a file system without hard links
                with locked(_lock_of(target)):
                    created = _renamed(staged, target)
        sync_folders(target.parent, self.root)
        return created

    def replace(self, path: str, data: bytes, seen: bytes) -> bool:
        target = self.root / path
        make_folder(target.parent)
        with locked(_lock_of(target)), _staged(target, data) as staged:
            with contextlib.suppress(FileNotFoundError):
                if target.read_bytes() != seen:
                    return False
                # a process that dies here leaves no file, and no damaged one either
                target.replace(target.with_name(f".replaced-{target.name}"))
            try:
                replaced = _linked(staged, target)
            except OSError:
                replaced = _renamed(staged, target)
        sync_folders(target.parent, self.root)
        return replaced


@dataclass(frozen=True)
class ObjectFiles:
    """In a bucket, through an obstore store whose keys are the paths."""

    store: Any

    def create(self, path: str, data: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            obstore.put(self.store, path, data, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def replace(self, path: str, data: bytes, seen: bytes) -> bool:
        import obstore
        from obstore.exceptions import NotFoundError, PreconditionError

        try:
            there = obstore.get(self.store, path)
            if bytes(there.bytes()) != seen:
                return False
            tags = {name: there.meta[name] for name in ("e_tag", "version")}
            unchanged: Any = {name: tag for name, tag in tags.items() if tag is not None}
            obstore.put(self.store, path, data, mode=unchanged)
        except PreconditionError:
            return False
        except (FileNotFoundError, NotFoundError):
            return self.create(path, data)
        return True


def object_errors() -> tuple[type[Exception], ...]:
    """What obstore raises when a bucket cannot be reached or refuses."""
    from obstore.exceptions import BaseError

    return (BaseError,)


@contextlib.contextmanager
def _staged(target: Path, data: bytes) -> Iterator[Path]:
    """A file with this content beside the target, on the disk; it goes with the block."""
    staged = target.with_name(f".unfinished-{uuid.uuid4().hex[:8]}-{target.name}")
    try:
        with open_own(staged, "xb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        yield staged
    finally:
        staged.unlink(missing_ok=True)


def _linked(staged: Path, target: Path) -> bool:
    """Give a finished file a second name; False if another file has it."""
    try:
        os.link(staged, target)
    except FileExistsError:
        return False
    return True


def _renamed(staged: Path, target: Path) -> bool:
    """As `_linked`, for one process at a time."""
    if target.exists():
        return False
    staged.replace(target)
    return True


def _lock_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def sync(path: Path) -> None:
    """Have a file or folder written to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folders(folder: Path, root: Path) -> None:
    """Have the names in a folder, and in those above it up to the root, written to the disk."""
    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError):  # a file system that cannot sync a folder
            sync(place)
        if place == root:
            return
