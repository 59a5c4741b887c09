"""Artifacts that stand beside a step's own: made by the same step from other texts.

A collection that has grown by 1 % gives another digest, and 99 % of what was made of its texts
still holds. The earlier artifact is the store of it: nothing is written twice, and what is pruned
is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.fs as pafs

from raypipe.config import digest
from raypipe.storage.artifacts import Artifact, Step, Store
from raypipe.storage.manifest import MANIFEST, content_of, parsed
from raypipe.storage.verified import damage

MOST = 3
"""Artifacts that values are taken from, the newest first: each is read whole."""
MOST_LOOKED_AT = 200
"""Manifests of a kind that are read, the newest first."""


def similar(store: Store, step: Step, apart: Collection[str]) -> list[Artifact]:
    """Undamaged artifacts of the same class, version and `spec`, the newest first, at most `MOST`.

    Args:
        apart: names of inputs that may differ, or be there in one of both only; all others are the
            same artifacts.
    """
    same = {name: below.digest for name, below in step.inputs().items() if name not in apart}
    found: list[Artifact] = []
    for path in _newest(store, step.kind):
        artifact = _at(store, path)
        if path == step.path or artifact is None or not _is_alike(step, artifact, same, apart):
            continue
        if step.refuses(artifact.counts) is None and _is_whole(artifact):
            found.append(artifact)
        if len(found) == MOST:
            break
    return found


def made_from(artifact: Artifact, name: str) -> Artifact | None:
    """The artifact that another one read under this name; None if it is gone, damaged or new."""
    entry = artifact.manifest["inputs"].get(name)
    below = None if entry is None else _at(artifact.store, entry["path"])
    if below is None or below.checksum != entry["checksum"] or not _is_whole(below):
        return None
    return below


def _newest(store: Store, kind: str) -> Iterator[str]:
    """Paths of the artifacts of a kind, the last written first."""
    folder = f"{store.root}/{kind}"
    infos = store.fs.get_file_info(pafs.FileSelector(folder, recursive=True, allow_not_found=True))
    manifests = [info for info in infos if info.base_name == MANIFEST]
    manifests.sort(key=lambda info: (-(info.mtime_ns or 0), info.path))
    for info in manifests[:MOST_LOOKED_AT]:
        yield info.path.removeprefix(f"{store.root}/").removesuffix(f"/{MANIFEST}")


def _at(store: Store, path: str) -> Artifact | None:
    with contextlib.suppress(OSError, ValueError, pa.ArrowException):
        if (content := content_of(store, path)) is not None:
            return Artifact(store, path, parsed(content, path))
    return None


def _is_alike(step: Step, artifact: Artifact, same: dict[str, str], apart: Collection[str]) -> bool:
    """Version and spec are in the digest, which is computed again."""
    manifest = artifact.manifest
    read = {name: entry["path"].rpartition("-")[2] for name, entry in manifest["inputs"].items()}
    inputs = {name: of for name, of in read.items() if name in same or name in apart}
    content = [step.kind, type(step).__name__, step.version, step.naming.spec, inputs]
    if digest(content) != artifact.digest:
        return False
    return all(read.get(name) == of for name, of in same.items())


def _is_whole(artifact: Artifact) -> bool:
    base = f"{artifact.store.root}/{artifact.step_path}/{artifact.manifest['attempt']}"
    with contextlib.suppress(OSError):
        return damage(artifact.store, base, artifact.manifest) is None
    return False
