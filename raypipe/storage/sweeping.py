"""Sweeping: attempts that nobody writes and no manifest names are removed.

A writer that slept for longer than its lease may wake up in the middle. So the sweeper leaves a
mark before it looks at the manifest, and the writer looks for the mark after it has created the
manifest: at least one of the two sees the other and gives up.
"""

from __future__ import annotations

import contextlib

import pyarrow as pa
import pyarrow.fs as pafs

from raypipe.storage.attempts import attempt_folders
from raypipe.storage.liveness import AttemptState, states
from raypipe.storage.manifest import content_of, parsed
from raypipe.storage.root import StorageRoot

_MARK = ".swept-"


def abandoned(root: StorageRoot, path: str) -> list[AttemptState]:
    """Attempts below an artifact's path that its manifest does not name and nobody writes.

    None, if the manifest cannot be read: it may name any of them.
    """
    try:
        committed = _committed(root, path)
    except ValueError:
        return []
    folders = [f for f in attempt_folders(root, path) if f.rpartition("/")[2] != committed]
    return [state for state in states(root, folders) if state.abandoned]


def sweep(root: StorageRoot, path: str) -> list[str]:
    """Remove the abandoned attempts below an artifact's path; returns their folders."""
    return [state.folder for state in abandoned(root, path) if _removed(root, path, state)]


def is_marked(root: StorageRoot, folder: str) -> bool:
    """Whether a sweeper has found this attempt abandoned."""
    above, _, name = folder.rpartition("/")
    info = root.fs.get_file_info(f"{above}/{_MARK}{name}")
    return bool(info.type == pafs.FileType.File)


def _removed(root: StorageRoot, path: str, state: AttemptState) -> bool:
    name = state.folder.rpartition("/")[2]
    mark = f"{path}/{_MARK}{name}"
    try:
        root.conditional.create(mark, b"swept\n")
    except OSError:  # a full disk: who cannot come back needs no mark
        if not state.ended:
            return False
    try:
        kept = _committed(root, path) == name
    except ValueError:
        kept = True
    with contextlib.suppress(OSError, pa.ArrowException):
        if not kept:
            root.fs.delete_dir(state.folder)
        if kept or state.ended:  # else its writer may still come, and must find the mark
            root.fs.delete_file(f"{root.root}/{mark}")
    return not kept


def _committed(root: StorageRoot, path: str) -> str:
    """The attempt that the manifest below a path names; "" without a manifest.

    Raises:
        ValueError: the manifest cannot be read.
    """
    content = content_of(root, path)
    return "" if content is None else str(parsed(content, path)["attempt"])
