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
from raypipe.storage.files import without_secrets


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

    @property
    def shown(self) -> str:
        """The URI for people and records, without passwords."""
        return without_secrets(self.uri)

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
        """Write and delete a small file; where copies will be made, read their limit.

        Raises:
            ConfigError: the storage cannot be written, or $RAYPIPE_CACHE_GB is no positive number.
        """
        try:
            if not self.is_local:
                chosen_limit()
            probe = f"{self.root}/.probe-{uuid.uuid4().hex[:8]}"
            self.fs.create_dir(self.root, recursive=True)
            with self.fs.open_output_stream(probe) as sink:
                sink.write(b"raypipe")
            self.fs.delete_file(probe)
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(
                f"storage {self.shown} cannot be written ({without_secrets(str(error))}); "
                "set storage= to a writable directory or bucket, or $RAYPIPE_HOME"
            ) from None
