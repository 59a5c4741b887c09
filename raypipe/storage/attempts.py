"""The folder that one writer of an artifact fills; every file appears in it whole.

Files and folders whose name begins with a dot are the writers' own notes and no part of the
artifact.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from raypipe.storage.conditional import sync, sync_folders
from raypipe.storage.files import close_file, make_folder, sha256
from raypipe.storage.parts import part_name
from raypipe.storage.root import StorageRoot

ATTEMPT = re.compile(r"attempt-[^.]+|train-[0-9a-f]{16}", re.DOTALL)
"""Names of writers' folders; raypipe 0.1 kept checkpoints in the second. No other folder is ours.
"""
_UNFINISHED = ".unfinished-"


class HasPath(Protocol):
    """What has a folder for its attempts."""

    @property
    def path(self) -> str:
        """The folder's path below the storage root."""
        ...


@dataclass
class AttemptFolder:
    """One writer's folder below an artifact. Picklable: actors write files into it."""

    store: StorageRoot
    step: HasPath
    name: str

    @property
    def base(self) -> str:
        """The folder's path on the storage's file system."""
        return f"{self.store.root}/{self.step.path}/{self.name}"

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """An output stream to a new file, which other processes see whole or not at all."""
        target = f"{self.base}/{name}"
        if not self.store.is_local:  # an object appears when its upload is complete
            with self.store.fs.open_output_stream(target) as sink:
                yield sink
            return
        staged = Path(f"{self.base}/{_UNFINISHED}{uuid.uuid4().hex[:8]}-{Path(name).name}")
        make_folder(Path(target).parent)
        make_folder(staged.parent)
        try:
            with self.store.fs.open_output_stream(str(staged)) as sink:
                yield sink
            staged.replace(target)
        finally:
            staged.unlink(missing_ok=True)

    def put_table(self, table: pa.Table, name: str | None = None) -> None:
        """Write a table as one Parquet file; the default name is that of a single part."""
        with self.open(name or part_name(0)) as sink:
            pq.write_table(table, sink)

    def put_directory(self, folder: Path) -> None:
        """Copy every file of a local directory into the attempt, but notes of another writer."""
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and not is_note(name):
                self.put_file(path, name)

    def link(self, path: str, name: str) -> None:
        """Add a file of the storage under this name, by a hard link or a copy."""
        target = f"{self.base}/{name}"
        if not self.store.is_local:
            self.store.fs.copy_file(path, target)
            return
        with contextlib.suppress(OSError):  # a file system without links gets a copy
            Path(target).hardlink_to(path)
            return
        self.put_file(Path(path), name)

    def put_file(self, path: Path, name: str) -> None:
        """Copy a file of this machine into the attempt, under a name that may hold folders."""
        if "/" in name:
            folder = f"{self.base}/{name}".rpartition("/")[0]
            self.store.fs.create_dir(folder, recursive=True)
        with self.open(name) as sink, path.open("rb") as source:
            shutil.copyfileobj(source, sink, 1 << 20)

    def checksums(self) -> dict[str, dict[str, Any]]:
        """By file name: `size` in bytes and `sha256`; notes and unfinished files are left out.

        On a disk, files and folders are written to it, so that a power loss takes nothing back.
        """
        fs = self.store.fs
        entries: dict[str, dict[str, Any]] = {}
        for path in self.store.files(self.base):
            name = path.removeprefix(f"{self.base}/")
            if not is_note(name):
                size = fs.get_file_info(path).size
                entries[name] = {"size": size, "sha256": sha256(fs.open_input_stream(path))}
                if self.store.is_local:
                    close_file(Path(path))
                    sync(Path(path))
        if self.store.is_local:
            for folder in {Path(self.base, name).parent for name in entries}:
                sync_folders(folder, Path(self.store.root))
        return entries

    def others(self) -> list[str]:
        """Folders of other attempts at the same artifact, sorted, as paths on the file system."""
        return [
            folder for folder in attempt_folders(self.store, self.step.path) if folder != self.base
        ]

    def discard(self, folder: str | None = None) -> None:
        """Remove this attempt's folder, or another one; what cannot be removed stays."""
        with contextlib.suppress(OSError):
            self.store.fs.delete_dir(folder or self.base)


def attempt_folders(root: StorageRoot, path: str) -> list[str]:
    """Folders of all attempts below an artifact's path, sorted, as paths on the file system."""
    selector = pafs.FileSelector(f"{root.root}/{path}", allow_not_found=True)
    try:
        infos = root.fs.get_file_info(selector)
    except (FileNotFoundError, NotADirectoryError):
        # pyarrow's, of a folder that appears while it is looked for; or no folder at all
        return []
    return sorted(
        info.path
        for info in infos
        if info.type == pafs.FileType.Directory and ATTEMPT.fullmatch(info.base_name)
    )


def is_note(name: str) -> bool:
    """Whether a file is a writer's own: begun but unfinished, or a note for later attempts."""
    return any(part.startswith(".") for part in name.split("/"))
