"""The storage root: a directory, or a bucket that pyarrow's file systems reach."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from raypipe.config import ConfigError
from raypipe.storage.address import Address
from raypipe.storage.bucket_files import bucket_files, opened
from raypipe.storage.cache import chosen_limit
from raypipe.storage.conditional import ConditionalFiles, DiskFiles, ObjectFiles, object_errors
from raypipe.storage.files import close_new_files, in_home, make_folder
from raypipe.storage.objects import objects_of


@dataclass(frozen=True)
class StorageRoot:
    """A directory, or a URI such as s3://bucket/prefix. Picklable, without the keys in the URI."""

    uri: Address

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", Address(self.uri))

    @cached_property
    def _fs_root(self) -> tuple[pafs.FileSystem, str]:
        if "://" not in self.uri:
            return pafs.LocalFileSystem(), str(Path(self.uri.reveal()).expanduser().absolute())
        try:
            fs, root = pafs.FileSystem.from_uri(self.uri.reveal())
        except pa.ArrowException as error:
            raise ConfigError(
                f"storage {self.uri}: expected a directory or a URI such as s3://bucket/prefix, "
                f"found {self.uri.clean(str(error))}; correct storage="
            ) from None
        return bucket_files(self.uri, fs), root.rstrip("/")

    @property
    def fs(self) -> pafs.FileSystem:
        return self._fs_root[0]

    @property
    def root(self) -> str:
        """The root's path on `fs`."""
        return self._fs_root[1]

    @cached_property
    def conditional(self) -> ConditionalFiles:
        """Files that one of several writers creates, by their path below the root."""
        if self.is_local:
            return DiskFiles(Path(self.root))
        return ObjectFiles(objects_of(self.uri.reveal(), opened(self.fs)))

    @property
    def shown(self) -> str:
        """The URI for people and records, without passwords."""
        return str(self.uri)

    def shown_path(self, path: str) -> str:
        """The address of a path below the root, for people and records; nothing opens it."""
        return f"{self.root.rstrip('/')}/{path}" if self.is_local else self.uri.shown_below(path)

    def below(self, path: str) -> Address:
        """The URI of a path below the root, with the root's own parameters."""
        return self.uri.below(path)

    @property
    def is_local(self) -> bool:
        """Whether this machine's file system holds the root (which may be a network mount)."""
        return isinstance(self.fs, pafs.LocalFileSystem)

    def __getstate__(self) -> dict[str, Address]:
        return {"uri": self.uri}  # the process that receives the root opens its file system anew

    def make_folder(self, folder: str) -> None:
        """Make a folder, by its path on `fs`, and those above it."""
        if self.is_local:
            make_folder(Path(folder))
        else:
            self.fs.create_dir(folder, recursive=True)

    def files(self, folder: str) -> list[str]:
        """Paths on `fs` of all files below a folder, sorted.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        infos = self.fs.get_file_info(pafs.FileSelector(folder, recursive=True))
        return sorted(info.path for info in infos if info.type == pafs.FileType.File)

    def check_writable(self) -> None:
        """Create a small file once, not twice, and delete it; read the limit of copies, if any.

        If the root is in raypipe's home, this process's new files are its user's alone from now on.

        Raises:
            ConfigError: the storage cannot be written, it lets two writers create one file, or
                $RAYPIPE_CACHE_GB is no positive number.
        """
        probe = f".probe-{uuid.uuid4().hex[:8]}"
        try:
            if not self.is_local:
                chosen_limit()
            elif in_home(Path(self.root)):
                close_new_files()
            self.make_folder(self.root)
            first, second = (self.conditional.create(probe, b"raypipe") for _ in range(2))
            self.fs.delete_file(f"{self.root}/{probe}")
        except (OSError, pa.ArrowException, *object_errors()) as error:
            raise ConfigError(
                f"storage {self.shown} cannot be written ({self.uri.clean(str(error))}); "
                "set storage= to a writable directory or bucket, or $RAYPIPE_HOME"
            ) from None
        if not first or second:
            raise ConfigError(
                f"storage {self.shown}: expected that a file is created only if it is absent, "
                "found that a second writer replaces it, so that finished work could be lost; set "
                "storage= to a directory, or to a bucket of a server that knows conditional writes "
                "(S3's If-None-Match)"
            )
