"""What stands in a storage: every artifact and attempt with its bytes, and Ray Tune's folders.

One listing of the storage tells it all; then each manifest is read. Nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.fs as pafs

from raypipe.config import ConfigError, near
from raypipe.storage.artifacts import Artifact, Store
from raypipe.storage.attempts import ATTEMPT
from raypipe.storage.files import sha256
from raypipe.storage.manifest import MANIFEST, content_of, parsed

TUNE = ".tune"
"""The folder below the storage where Ray Tune keeps its own files, in a folder per job."""
ANSWERS = ".answers"
"""The folder below the storage with answers of language models, in a folder per engine."""
TUNE_OVER = ".over"
"""The file that a job which ends leaves in its own one of these folders."""
_ARTIFACT = re.compile(r".*-[0-9a-f]{16}", re.DOTALL)
_READERS = 8
"""Files that are read at once; an object store takes 50 ms to open one."""


@dataclass
class Folder:
    """Bytes of all files below a folder, and when the last of them was written."""

    size: int = 0
    last_write: float | None = None
    """Seconds since the epoch, by the storage's clock; None where no file says it."""
    files: set[str] = field(default_factory=set)
    """Names of the files that stand directly in it."""

    def add(self, info: pafs.FileInfo, name: str) -> None:
        """Count a file or folder, of this name below the folder."""
        if info.type == pafs.FileType.File:
            self.size += info.size
            if "/" not in name:
                self.files.add(name)
        if info.mtime_ns is not None:
            self.last_write = max(self.last_write or 0.0, info.mtime_ns / 1e9)


@dataclass
class Place:
    """Everything below the path of one artifact."""

    store: Store
    path: str
    """<kind>/<name>-<digest>."""
    attempts: dict[str, Folder] = field(default_factory=dict)
    has_manifest: bool = False
    artifact: Artifact | None = None
    problem: str = ""
    """Why the manifest cannot be read."""

    @property
    def size(self) -> int:
        """Bytes that the manifest names; 0 without one."""
        if self.artifact is None:
            return 0
        return sum(meta["size"] for meta in self.artifact.manifest["files"].values())

    @property
    def unnamed(self) -> dict[str, Folder]:
        """Attempts that the manifest does not name; none if it cannot be read."""
        if self.problem:
            return {}
        named = self.artifact.manifest["attempt"] if self.artifact else None
        return {name: folder for name, folder in self.attempts.items() if name != named}

    def add(self, info: pafs.FileInfo, below: list[str]) -> None:
        """Count a file or folder, by the names on its way below this path."""
        if below == [MANIFEST]:
            self.has_manifest = True
        elif below and ATTEMPT.fullmatch(below[0]) and (len(below) > 1 or _is_folder(info)):
            self.attempts.setdefault(below[0], Folder()).add(info, "/".join(below[1:]))

    def read(self) -> None:
        """Read the manifest, if there is one."""
        self.artifact, self.problem = None, ""
        if not self.has_manifest:
            return
        try:
            if (content := content_of(self.store, self.path)) is None:  # removed since the listing
                self.has_manifest = False
            else:
                self.artifact = Artifact(self.store, self.path, parsed(content, self.path))
        except (OSError, ValueError) as error:
            self.problem = self.store.uri.clean(str(error))


def _is_folder(info: pafs.FileInfo) -> bool:
    return bool(info.type == pafs.FileType.Directory)


@dataclass(frozen=True)
class Inventory:
    """A storage at one moment."""

    store: Store
    places: Mapping[str, Place]
    """By path, in order: artifacts, and paths with attempts only."""
    tune: Mapping[str, Folder]
    """Ray Tune's folders, by name."""

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """Those whose manifest can be read, by path."""
        return {path: place.artifact for path, place in self.places.items() if place.artifact}

    @property
    def unreadable(self) -> dict[str, str]:
        """Why a manifest cannot be read, by path."""
        return {path: place.problem for path, place in self.places.items() if place.problem}

    def named(self, text: str) -> Place:
        """The artifact of a path, an address, a name with digest, or the digest's first digits.

        Raises:
            ConfigError: there is none, or more than one.
        """
        address = f"/{text.rstrip('/')}"
        whole = [p for p in self.places if address.endswith(f"/{p}") or p.endswith(address)]
        digests = [p for p in self.places if text and p.rpartition("-")[2].startswith(text)]
        matches = whole or digests
        if len(matches) == 1:
            return self.places[matches[0]]
        if matches:
            listed = ", ".join(matches[:5]) + (", ..." if len(matches) > 5 else "")
            raise ConfigError(f"{text!r}: expected one artifact, found {len(matches)}: {listed}")
        close = near(text, [n for path in self.places for n in (path, path.partition("/")[2])])
        meant = f"did you mean {close[0]!r}?" if close else "`list` shows what there is"
        raise ConfigError(f"{self.store.shown}: no artifact {text!r}; {meant}")

    def behind(self, paths: set[str]) -> set[str]:
        """These paths and those of all artifacts that theirs were made from, as manifests say."""
        reached: set[str] = set()
        waiting = list(paths)
        while waiting:
            if (path := waiting.pop()) not in reached:
                reached.add(path)
                place = self.places.get(path)
                inputs = place.artifact.manifest["inputs"] if place and place.artifact else {}
                waiting += [entry["path"] for entry in inputs.values()]
        return reached


def inventory(store: Store) -> Inventory:
    """List the storage and read every manifest.

    Raises:
        ConfigError: the storage is not there or cannot be read.
    """
    places: dict[str, Place] = {}
    tune: dict[str, Folder] = {}
    for info in _listed(store):
        folders = info.path.removeprefix(f"{store.root}/").split("/")
        if folders[0] == TUNE and len(folders) > (1 if _is_folder(info) else 2):
            tune.setdefault(folders[1], Folder()).add(info, "/".join(folders[2:]))
        if folders[0].startswith("."):
            continue
        depth = next((n for n, f in enumerate(folders) if n and _ARTIFACT.fullmatch(f)), None)
        if depth is not None:
            path = "/".join(folders[: depth + 1])
            places.setdefault(path, Place(store, path)).add(info, folders[depth + 1 :])
    in_order = {path: places[path] for path in sorted(places)}
    with ThreadPoolExecutor(_READERS) as pool:
        list(pool.map(Place.read, in_order.values()))
    filled = {path: p for path, p in in_order.items() if p.has_manifest or p.attempts}
    return Inventory(store, filled, tune)


def place_at(store: Store, path: str) -> Place:
    """What stands at an artifact's path now."""
    place, base = Place(store, path), f"{store.root}/{path}"
    for info in store.fs.get_file_info(
        pafs.FileSelector(base, recursive=True, allow_not_found=True)
    ):
        place.add(info, info.path.removeprefix(f"{base}/").split("/"))
    place.read()
    return place


def folder_at(store: Store, path: str) -> Folder:
    """What a folder below the storage's root holds now."""
    base, folder = f"{store.root}/{path}", Folder()
    selector = pafs.FileSelector(base, recursive=True, allow_not_found=True)
    for info in [store.fs.get_file_info(base), *store.fs.get_file_info(selector)]:
        folder.add(info, info.path.removeprefix(base).lstrip("/"))
    return folder


def _listed(store: Store) -> list[pafs.FileInfo]:
    """Everything below the storage's root."""
    try:
        if store.fs.get_file_info(store.root).type != pafs.FileType.Directory:
            raise ConfigError(
                f"storage {store.shown}: expected a directory or a bucket, found none; name the "
                "one that jobs write to, --storage, or set $RAYPIPE_HOME"
            )
        # a folder may go while it is listed
        selector = pafs.FileSelector(store.root, recursive=True, allow_not_found=True)
        infos: list[pafs.FileInfo] = store.fs.get_file_info(selector)
    except (OSError, pa.ArrowException) as error:
        reason = store.uri.clean(str(error))
        raise ConfigError(f"storage {store.shown} cannot be read ({reason})") from None
    return infos


def damaged_files(artifact: Artifact) -> Iterator[str]:
    """What is wrong with each file of an artifact that is gone, or has other bytes than committed.

    Every file is read.
    """
    store, files = artifact.store, artifact.manifest["files"]
    base = f"{store.root}/{artifact.step_path}/{artifact.manifest['attempt']}"
    names = artifact.files
    infos = store.fs.get_file_info([f"{base}/{name}" for name in names])
    whole = []
    for name, info in zip(names, infos, strict=True):
        if info.type != pafs.FileType.File:
            yield f"{name}: not there"
        elif info.size != files[name]["size"]:
            yield f"{name}: expected {files[name]['size']:,} bytes, found {info.size:,}"
        else:
            whole.append(name)
    with ThreadPoolExecutor(_READERS) as pool:
        checksums = pool.map(lambda name: _checksum(store, f"{base}/{name}"), whole)
        for name, checksum in zip(whole, checksums, strict=True):
            if checksum != files[name]["sha256"]:
                yield f"{name}: expected the sha256 {files[name]['sha256']}, found {checksum}"


def _checksum(store: Store, path: str) -> str:
    """The file's SHA-256, or why it cannot be read."""
    try:
        return sha256(store.fs.open_input_stream(path))
    except OSError as error:
        return store.uri.clean(str(error))


def size_text(size: float) -> str:
    """Bytes in the unit that leaves at most three digits before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
