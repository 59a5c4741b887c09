"""A bucket's file system whose pickle holds no keys: pyarrow's own would hold those of the URI.

Streams are pyarrow's own, so that reading and writing cost the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.fs as pafs

from raypipe.storage.address import Address


def bucket_files(address: Address, fs: pafs.FileSystem) -> pafs.FileSystem:
    """The file system that pyarrow opened for an address, fit to be pickled."""
    return pafs.PyFileSystem(BucketFiles(address, fs)) if address.hides else fs


def opened(fs: pafs.FileSystem) -> pafs.FileSystem:
    """The file system that pyarrow opened, which has the kind's own properties."""
    return fs.handler.fs if isinstance(fs, pafs.PyFileSystem) else fs


class BucketFiles(pafs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """Hands everything on to the file system of an address; a pickle opens it anew."""

    def __init__(self, address: Address, fs: pafs.FileSystem | None = None) -> None:
        self.address = address
        self.fs = pafs.FileSystem.from_uri(address.reveal())[0] if fs is None else fs

    def __reduce__(self) -> tuple[Any, ...]:
        return BucketFiles, (self.address,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketFiles) and self.address == other.address

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.address)

    def get_type_name(self) -> str:
        return str(self.fs.type_name)

    def normalize_path(self, path: str) -> str:
        return str(self.fs.normalize_path(path))

    def get_file_info(self, paths: Sequence[str]) -> Any:
        return self.fs.get_file_info(list(paths))

    def get_file_info_selector(self, selector: pafs.FileSelector) -> Any:
        return self.fs.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self.fs.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self.fs.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool) -> None:
        self.fs.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        self.fs.delete_dir_contents("", accept_root_dir=True)

    def delete_file(self, path: str) -> None:
        self.fs.delete_file(path)

    def move(self, src: str, dest: str) -> None:
        self.fs.move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        self.fs.copy_file(src, dest)

    def open_input_stream(self, path: str) -> Any:
        return self.fs.open_input_stream(path, compression=None)

    def open_input_file(self, path: str) -> Any:
        return self.fs.open_input_file(path)

    def open_output_stream(self, path: str, metadata: Mapping[str, str]) -> Any:
        return self.fs.open_output_stream(path, compression=None, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Mapping[str, str]) -> Any:
        return self.fs.open_append_stream(path, compression=None, metadata=metadata)
