"""A bucket that is a folder: a file system that is not this machine's, whose files tests reach."""

from __future__ import annotations

from pathlib import Path

import pyarrow.fs as pafs
import pytest

from raypipe.storage.artifacts import Store
from raypipe.storage.conditional import DiskFiles


def bucket_store(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Store:
    """The store s3://bucket, whose objects are the files of folder/remote/bucket."""
    (folder / "remote").mkdir()
    there = pafs.SubTreeFileSystem(str(folder / "remote"), pafs.LocalFileSystem())
    monkeypatch.setattr(Store, "_fs_root", (there, "bucket"))
    monkeypatch.setattr(Store, "conditional", DiskFiles(folder / "remote" / "bucket"))
    monkeypatch.setenv("RAYPIPE_HOME", str(folder / "home"))
    return Store("s3://bucket")
