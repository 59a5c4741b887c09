"""A bucket that is a folder: a file system that is not this machine's, whose files tests reach."""

from __future__ import annotations

from pathlib import Path

import pyarrow.fs as pafs
import pytest

from raypipe.storage.artifacts import Store
from raypipe.storage.conditional import DiskFiles


def bucket_store(monkeypatch: pytest.MonkeyPatch, files: Path) -> Store:
    """The store s3://NAME, whose objects are the files of a folder with that name."""
    files.mkdir(parents=True)
    there = pafs.SubTreeFileSystem(str(files.parent), pafs.LocalFileSystem())
    monkeypatch.setattr(Store, "_fs_root", (there, files.name))
    monkeypatch.setattr(Store, "conditional", DiskFiles(files))
    return Store(f"s3://{files.name}")


def store_on(kind: str, monkeypatch: pytest.MonkeyPatch, files: Path) -> Store:
    """A store whose files lie in a folder: "disk", or "bucket" for `bucket_store`."""
    if kind == "bucket":
        return bucket_store(monkeypatch, files)
    files.mkdir(parents=True)
    return Store(str(files))
