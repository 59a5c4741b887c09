"""The storage root: a directory, or a bucket that pyarrow's file systems reach."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from raypipe.config import ConfigError
from raypipe.storage.cache import chosen_limit
from raypipe.storage.conditional import ConditionalFiles, DiskFiles, ObjectFiles, object_errors
from raypipe.storage.files import without_secrets
from raypipe.storage.objects import objects_of


@dataclass(frozen=True)
class StorageRoot:
    """A directory, or a URI such as s3://bucket/prefix. Picklable."""

    uri: str

    @cached_property
    def _fs_root(self) -> tuple[pafs.FileSystem, str]:
        if "://" in self.uri:
            fs, root = pafs.FileSystem.from_uri(self.uri)
            return fs, root.rstrip("/")
        return pafs.LocalFileSystem(), str(Path(self.uri).expanduser().absolute())

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
        return ObjectFiles(objects_of(self.uri, self.fs))

    @property
    def shown(self) -> str:
        """The URI for people and records, without passwords."""
        return without_secrets(self.uri)

    def shown_path(self, path: str) -> str:
        """The address of a path below the root, for people and records; nothing opens it."""
        return f"{(self.root if self.is_local else self.shown).rstrip('/')}/{path}"

    def below(self, path: str) -> str:
        """The URI of a path below the root, with the root's own parameters."""
        parts = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        address, mark, parameters = parts
        return f"{address.rstrip('/')}/{path}{mark}{parameters}"

    @property
    def is_local(self) -> bool:
        """Whether this machine's file system holds the root (which may be a network mount)."""
        return isinstance(self.fs, pafs.LocalFileSystem)

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}  # the process that receives the root opens its file system anew

    def files(self, folder: str) -> list[str]:
        """Paths on `fs` of all files below a folder, sorted.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        infos = self.fs.get_file_info(pafs.FileSelector(folder, recursive=True))
        return sorted(info.path for info in infos if info.type == pafs.FileType.File)

    def check_writable(self) -> None:
        """Create a small file once, not twice, and delete it; read the limit of copies, if any.

        Raises:
            ConfigError: the storage cannot be written, it lets two writers create one file, or
                $RAYPIPE_CACHE_GB is no positive number.
        """
        probe = f".probe-{uuid.uuid4().hex[:8]}"
        try:
            if not self.is_local:
                chosen_limit()
            self.fs.create_dir(self.root, recursive=True)
            first, second = (self.conditional.create(probe, b"raypipe") for _ in range(2))
            self.fs.delete_file(f"{self.root}/{probe}")
        except (OSError, pa.ArrowException, *object_errors()) as error:
            raise ConfigError(
                f"storage {self.shown} cannot be written ({without_secrets(str(error))}); "
                "set storage= to a writable directory or bucket, or $RAYPIPE_HOME"
            ) from None
        if not first or second:
            raise ConfigError(
                f"storage {self.shown}: expected that a file is created only if it is absent, "
                "found that a second writer replaces it, so that finished work could be lost; set "
                "storage= to a directory, or to a bucket of a server that knows conditional writes "
                "(S3's If-None-Match)"
            )
