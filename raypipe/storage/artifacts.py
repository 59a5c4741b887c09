"""Content-addressed artifacts on any pyarrow filesystem: the only interface between steps.

`<storage>/<kind>/<name>-<digest>/manifest.json` stands beside `<attempt>/` directories. A writer
fills its own attempt and creates the manifest last, if none is there: no manifest, no artifact.
Readers follow the manifest to the winning attempt and read nothing else. Whoever comes second reads
the first one's artifact and removes its own attempt. Only a damaged artifact is replaced.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from raypipe.config import ConfigError, digest
from raypipe.storage.attempts import attempt_folders, is_note
from raypipe.storage.cache import localize, localized
from raypipe.storage.copies import RemoteFolder
from raypipe.storage.files import KnownFile, collected
from raypipe.storage.liveness import LEASE_S, AttemptState, Heartbeat, has_writer, states
from raypipe.storage.manifest import (
    FORMAT,
    MANIFEST,
    artifact_path,
    as_bytes,
    content_of,
    parsed,
    unreadable,
    versions,
)
from raypipe.storage.outside import Naming
from raypipe.storage.parts import in_order
from raypipe.storage.resume import ResumableFolder
from raypipe.storage.reuse import refusal
from raypipe.storage.root import StorageRoot
from raypipe.storage.sweeping import is_marked, sweep
from raypipe.storage.verified import damage, remember

_ROUNDS = 20
"""How often a commit looks at a manifest that is there and not there."""


class Step:
    """What makes one artifact: pure data that names its content, and the work that fills it.

    Subclasses are frozen dataclasses whose fields are configs and other steps. Two steps with the
    same class, version, `spec` and inputs are the same artifact, so a plan needs no work done.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    tells: ClassVar[bool] = False
    """Whether its processes say how far they are, by lines of their own."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions that may decide the content; another major version is said at reuse."""

    @property
    def name(self) -> str:
        """Readable part of the path; not in the digest."""
        raise NotImplementedError

    def spec(self) -> Mapping[str, Any]:
        """What decides the content beside the inputs, as JSON values."""
        return {}

    def inputs(self) -> Mapping[str, Step]:
        """The steps whose artifacts decide the content."""
        return {}

    def needs(self) -> Mapping[str, Step]:
        """Further steps whose artifacts `run` reads, by the name that it finds them under.

        Their digests are not part of this step's digest: `spec` says what of them decides the
        content.
        """
        return {}

    def facts(self) -> Mapping[str, Any]:
        """What the manifest says and the digest does not depend on, as JSON values: paths, URLs,
        whether values are scores or ranks. No key, no password."""
        return {}

    def refuses(self, counts: Mapping[str, Any]) -> str | None:
        """Why a committed artifact with these counts is made again; None if it may be used."""
        return None

    def remarks(self, facts: Mapping[str, Any]) -> Sequence[str]:
        """What to say when an artifact with these facts is used again."""
        return ()

    def alarms(self, counts: Mapping[str, Any]) -> Sequence[str]:
        """What people must know of an artifact with these counts, whenever it is used."""
        return ()

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        """Write the files into the attempt; return counts, drops and repairs among them."""
        raise NotImplementedError

    @cached_property
    def naming(self) -> Naming:
        """What the digest is made from, settled when it is first asked for."""
        with collected() as files:
            spec = dict(self.spec())
        inputs = {name: step.digest for name, step in self.inputs().items()}
        return Naming(spec, inputs, tuple(files.values()))

    @cached_property
    def digest(self) -> str:
        spec, inputs = self.naming.spec, self.naming.inputs
        return digest([self.kind, type(self).__name__, self.version, spec, inputs])

    @cached_property
    def selective(self) -> bool:
        """Whether `refuses` of this step or of one that it is made from may give a reason."""
        own = type(self).refuses is not Step.refuses
        return own or any(step.selective for step in self.inputs().values())

    @property
    def path(self) -> str:
        """The artifact's path below the storage root."""
        return artifact_path(self.kind, self.name, self.digest)


@dataclass(frozen=True)
class Artifact:
    """A committed artifact: where it is and what its manifest says."""

    store: Store
    step_path: str
    manifest: Mapping[str, Any]

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @property
    def checksum(self) -> str:
        """The manifest's checksum, which downstream manifests record."""
        return digest(dict(self.manifest), 32)

    @property
    def counts(self) -> dict[str, Any]:
        return dict(self.manifest["counts"])

    @property
    def uri(self) -> str:
        """The artifact's address for people and records; without passwords, so nothing opens it."""
        return self.store.uri.shown_below(self.step_path)

    @property
    def files(self) -> list[str]:
        """Names in order, see `parts.in_order`."""
        return in_order(self.manifest["files"])

    def read(self, name: str) -> bytes:
        """The content of one small file; no file is copied to this machine."""
        with self.store.fs.open_input_stream(f"{self._base}/{name}") as stream:
            content: bytes = stream.read()
        return content

    def table(self) -> pa.Table:
        """All part-*.parquet files in order, as one table."""
        parts = [name for name in self.files if name.endswith(".parquet")]
        with self._opened() as folder:
            return pa.concat_tables([pq.read_table(folder / name) for name in parts])

    def local(self) -> Path:
        """A directory on this machine with the files, which stays until this process ends.

        A local storage's own directory, or a copy of the remote files, made once per node.

        Raises:
            OSError: the files do not fit, or a copied one does not have its committed checksum.
        """
        return Path(self._base) if self.store.is_local else localize(self._remote())

    def _opened(self) -> contextlib.AbstractContextManager[Path]:
        """As `local`, but a copy may go when the block ends."""
        if self.store.is_local:
            return contextlib.nullcontext(self.local())
        return localized(self._remote())

    @property
    def _base(self) -> str:
        """The files' folder on the store's file system."""
        return f"{self.store.root}/{self.step_path}/{self.manifest['attempt']}"

    def _remote(self) -> RemoteFolder:
        path = f"{self.step_path}/{self.manifest['attempt']}"
        return RemoteFolder(self.store.fs, self._base, path, self.manifest["files"], self.uri)


@dataclass(frozen=True)
class Store(StorageRoot):
    """The artifacts below a storage root."""

    def find(self, step: Step) -> Artifact | None:
        """The committed artifact of `step`; None if there is none, or it is damaged or refused.

        It is damaged if its manifest cannot be read, or if a file is not there or has another size
        than committed; on a disk also if a file has another checksum, which each machine computes
        once.
        """
        return self._look(step)[0]

    def _look(self, step: Step) -> tuple[Artifact | None, bytes | None]:
        """As `find`; and the manifest's content, which a repair replaces. None: no manifest."""
        path = f"{self.root}/{step.path}"
        try:
            content = content_of(self, step.path)
        except OSError as error:
            raise unreadable(f"{self.shown_path(step.path)}/{MANIFEST}", error) from None
        if content is None:
            return None, None
        try:
            manifest = parsed(content, step.path)
        except ConfigError:
            raise
        except ValueError:
            warnings.warn(f"{path}/{MANIFEST} is damaged: made again", stacklevel=3)
            return None, content
        base = f"{path}/{manifest['attempt']}"
        try:
            name = damage(self, base, manifest)
        except OSError as error:
            raise unreadable(base, error) from None
        if name is not None:
            warnings.warn(f"{base}/{name} is damaged: made again", stacklevel=3)
            return None, content
        if (reason := refusal(step, manifest, self.manifest)) is not None:
            warnings.warn(f"{path}: {reason}: made again", stacklevel=3)
            return None, content
        return Artifact(self, step.path, manifest), content

    def manifest(self, step: Step) -> dict[str, Any] | None:
        """What was committed, whatever became of its files; None if nothing that can be read."""
        with contextlib.suppress(OSError, ValueError):
            if (content := content_of(self, step.path)) is not None:
                return parsed(content, step.path)
        return None

    @contextlib.contextmanager
    def attempt(self, step: Step, inputs: Mapping[str, Artifact]) -> Iterator[Attempt]:
        """A writer's own folder; `commit` makes it the artifact.

        An error discards the folder, unless the attempt is resumable: then a later attempt takes
        over its files.
        """
        attempt = Attempt(self, step, f"attempt-{uuid.uuid4().hex[:12]}", dict(inputs))
        self.make_folder(attempt.base)
        try:
            with Heartbeat(self, attempt.base):
                attempt.record_inputs()
                yield attempt
        except BaseException:
            if not attempt.resumable:
                attempt.discard()
            raise

    def writers(self, step: Step) -> list[AttemptState]:
        """Attempts at the artifact of `step` whose writers live, the earliest first."""
        folders = attempt_folders(self, step.path)
        return [state for state in states(self, folders) if state.alive]


@dataclass
class Attempt(ResumableFolder):
    """One writer's work on an artifact: its folder, and what the manifest will say of it."""

    store: Store
    step: Step
    name: str
    inputs: dict[str, Artifact]
    started: float = field(default_factory=time.time)
    outside: Sequence[KnownFile] = ()
    """Files from outside that the step reads; a resumable step checks them before it writes what a
    later attempt would take over."""

    def comes_first(self) -> bool:
        """Whether no other living writer of this artifact began before this one."""
        if not (others := self.others()):
            return True
        alive = [state for state in states(self.store, [self.base, *others]) if state.alive]
        return not alive or alive[0].folder == self.base

    def commit(self, counts: Mapping[str, Any], used: Mapping[str, Any] | None = None) -> Artifact:
        """Create the manifest; if another attempt's stands, return that artifact instead.

        What the manifest names is on the disk before. A damaged artifact's manifest is replaced.

        Args:
            used: workers, batch sizes and the like, for the manifest.

        Raises:
            OSError: files of this attempt are gone, and no other attempt was committed.
        """
        files = self._complete_files()
        if files is not None:
            content = as_bytes(self._manifest(files, counts, used or {}))
            if self._publish(content):
                self._tidy()
                artifact = Artifact(self.store, self.step.path, json.loads(content))
                remember(self.store, self.base, artifact.manifest)
                return artifact
        self.discard()
        if (standing := self.store.find(self.step)) is None:
            raise OSError(
                f"{self.base} lost files before it was committed: another job swept it away after "
                f"{LEASE_S:.0f} s without a sign of life, or somebody removed it; run the same "
                "command again"
            )
        return standing

    def _complete_files(self) -> dict[str, dict[str, Any]] | None:
        """By name, size and checksum of every file; None if one is gone."""
        try:
            files = self.checksums()
        except FileNotFoundError:
            return None
        there = has_writer(self.store, self.base) and self.expected <= files.keys()
        return files if there else None

    def _publish(self, content: bytes) -> bool:
        """Make this content the manifest; False if another attempt's stands, or this was swept."""
        target, store = f"{self.step.path}/{MANIFEST}", self.store
        rounds = 0
        while not store.conditional.create(target, content):
            standing, seen = store._look(self.step)
            rounds += 1
            if seen is None and rounds > _ROUNDS:
                gone = OSError("it is there and cannot be read: a link that leads nowhere?")
                raise unreadable(store.shown_path(target), gone)
            if standing is None and seen is not None:
                time.sleep(0.5)  # a network mount may show the winner's files late
                standing = store.find(self.step)
            if standing is not None:
                return False
            if seen is not None and store.conditional.replace(target, content, seen):
                break
        if has_writer(store, self.base) and not is_marked(store, self.base):
            return True
        store.conditional.replace(target, b"{}", content)
        return False

    def _tidy(self) -> None:
        """Remove what only writers needed, and attempts that nobody writes any more."""
        with contextlib.suppress(OSError, pa.ArrowException):
            for info in self.store.fs.get_file_info(pafs.FileSelector(self.base)):
                if info.type == pafs.FileType.Directory and is_note(info.base_name):
                    self.store.fs.delete_dir(info.path)
        with contextlib.suppress(OSError, pa.ArrowException):
            sweep(self.store, self.step.path)

    def _manifest(
        self, files: Mapping[str, Any], counts: Mapping[str, Any], used: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": self.step.kind,
            "name": self.step.name,
            "digest": self.step.digest,
            "step": type(self.step).__name__,
            "spec": dict(self.step.naming.spec),
            "attempt": self.name,
            "inputs": self.input_checksums(),
            "files": dict(files),
            "counts": dict(counts),
            "facts": dict(self.step.facts()),
            "used": dict(used),
            "storage": self.store.shown,
            "seconds": round(time.time() - self.started, 3),
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": platform.node(),
            "versions": versions(),
            **self._replaces(),
        }

    def _replaces(self) -> dict[str, list[str]]:
        """The refused artifacts that this one replaces: what was made from them is refused too."""
        read = self.store.manifest
        earlier = read(self.step) if self.step.selective else None
        if earlier is None or refusal(self.step, earlier, read) is None:
            return {}
        return {"replaces": [digest(earlier, 32), *earlier.get("replaces", ())]}
