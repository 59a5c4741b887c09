"""Whether a committed artifact's files are still what was committed.

Sizes are looked at whenever an artifact is found. Checksums of files on a disk are computed once
per machine, which `$RAYPIPE_HOME/cache/verified` remembers; copies of remote files are checked when
they are made (cache).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from raypipe.config import digest
from raypipe.storage.files import home, note_once, sha256
from raypipe.storage.root import StorageRoot


def damage(root: StorageRoot, base: str, manifest: Mapping[str, Any]) -> str | None:
    """The name of a file that is not what the manifest says; None if all are.

    Args:
        base: the folder of the manifest's attempt, on the storage's file system.
    """
    files = manifest["files"]
    infos = root.fs.get_file_info([f"{base}/{name}" for name in files])
    for (name, meta), info in zip(files.items(), infos, strict=True):
        if info.type != pafs.FileType.File or info.size != meta["size"]:
            return str(name)
    if not root.is_local or _memo(base, manifest).exists():
        return None
    for name, meta in files.items():
        if sha256(root.fs.open_input_stream(f"{base}/{name}")) != meta["sha256"]:
            return str(name)
    remember(root, base, manifest)
    return None


def remember(root: StorageRoot, base: str, manifest: Mapping[str, Any]) -> None:
    """Note that this machine has seen every file with its checksum."""
    if root.is_local:
        note_once(_memo(base, manifest))


def _memo(base: str, manifest: Mapping[str, Any]) -> Path:
    return home() / "cache" / "verified" / digest([base, dict(manifest)], 32)
