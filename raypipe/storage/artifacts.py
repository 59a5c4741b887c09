"""Content-addressed artifacts on any pyarrow filesystem: the only interface between steps.

`<storage>/<kind>/<name>-<digest>/manifest.json` stands beside `<attempt>/` directories. A writer
fills its own attempt and writes the manifest last, with one PUT: no manifest, no artifact. Readers
follow the manifest to the winning attempt and read nothing else.
"""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from raypipe.config import ConfigError, digest
from raypipe.storage.cache import RemoteFolder, localize, localized
from raypipe.storage.files import sha256, without_secrets

MANIFEST = "manifest.json"
_INPUTS = ".inputs.json"
_UNFINISHED = ".unfinished-"
_VERSIONED = (
    *("raypipe", "ray", "torch", "transformers", "tokenizers", "pyarrow", "numpy", "bm25s"),
    *("PyStemmer", "faiss-cpu", "vllm"),
)


class Step:
    """What makes one artifact: pure data that names its content, and the work that fills it.

    Subclasses are frozen dataclasses whose fields are configs and other steps. Two steps with the
    same class, version, `spec` and inputs are the same artifact, so a plan needs no work done.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """Readable part of the path; not in the digest."""
        raise NotImplementedError

    def spec(self) -> Mapping[str, Any]:
        """JSON-able: whatever decides the content beside the inputs."""
        return {}

    def inputs(self) -> Mapping[str, Step]:
        """The steps whose artifacts decide the content."""
        return {}

    def needs(self) -> Mapping[str, Step]:
        """Further steps whose artifacts `run` reads, in the digest by what `spec` says of them."""
        return {}

    def facts(self) -> Mapping[str, Any]:
        """JSON-able: what the manifest says beside that, and the digest must not depend on: paths,
        URLs, whether values are scores or ranks. No key, no password."""
        return {}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        """Write the files into the attempt; returns counts, drops and repairs among them."""
        raise NotImplementedError

    @cached_property
    def digest(self) -> str:
        inputs = {name: step.digest for name, step in self.inputs().items()}
        me = [self.kind, type(self).__name__, self.version, dict(self.spec()), inputs]
        return digest(me)

    @property
    def path(self) -> str:
        """Below the storage root."""
        return f"{self.kind}/{self.name}-{self.digest}"


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
        """Of the manifest: what a downstream manifest records."""
        return digest(dict(self.manifest), 32)

    @property
    def counts(self) -> dict[str, Any]:
        return dict(self.manifest["counts"])

    @property
    def uri(self) -> str:
        """For people and records: `store` holds what opens it."""
        return f"{self.store.shown.rstrip('/')}/{self.step_path}"

    @property
    def files(self) -> list[str]:
        return sorted(self.manifest["files"])

    def read(self, name: str) -> bytes:
        """One small file; the others are not copied to this machine."""
        with self.store.fs.open_input_stream(f"{self._base}/{name}") as stream:
            content: bytes = stream.read()
        return content

    def table(self) -> pa.Table:
        """All part-*.parquet files in order, as one table."""
        parts = [name for name in self.files if name.endswith(".parquet")]
        with self._opened() as folder:
            return pa.concat_tables([pq.read_table(folder / name) for name in parts])

    def local(self) -> Path:
        """A directory on this machine with the files; it stays until this process ends.

        Local storage is used in place, remote files are copied once per node.

        Raises:
            OSError: the files do not fit, or a copied one does not have its committed checksum.
        """
        return Path(self._base) if self.store.is_local else localize(self._remote())

    def _opened(self) -> contextlib.AbstractContextManager[Path]:
        """As `local`, but a copy stays only until the block ends."""
        if self.store.is_local:
            return contextlib.nullcontext(self.local())
        return localized(self._remote())

    @property
    def _base(self) -> str:
        """On the store's file system."""
        return f"{self.store.root}/{self.step_path}/{self.manifest['attempt']}"

    def _remote(self) -> RemoteFolder:
        path = f"{self.step_path}/{self.manifest['attempt']}"
        return RemoteFolder(self.store.fs, self._base, path, self.manifest["files"], self.uri)


@dataclass(frozen=True)
class Store:
    """The storage root: a directory, or a URI such as s3://bucket/prefix. Picklable."""

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
        return self._fs_root[1]

    @property
    def shown(self) -> str:
        """The URI for people and records."""
        return without_secrets(self.uri)

    @property
    def is_local(self) -> bool:
        """On this machine's file system (which may still be a network mount)."""
        return isinstance(self.fs, pafs.LocalFileSystem)

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}  # file systems are opened again where the store arrives

    def check_writable(self) -> None:
        """Write and delete a small file.

        Raises:
            ConfigError: the storage cannot be written.
        """
        try:
            probe = f"{self.root}/.probe-{uuid.uuid4().hex[:8]}"
            self.fs.create_dir(self.root, recursive=True)
            with self.fs.open_output_stream(probe) as out:
                out.write(b"raypipe")
            self.fs.delete_file(probe)
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(
                f"storage {self.shown} cannot be written ({without_secrets(str(error))}); "
                "set storage= to a writable directory or bucket, or $RAYPIPE_HOME"
            ) from None

    def find(self, step: Step) -> Artifact | None:
        """The committed artifact of `step`, or None. Files of another size than committed: None."""
        path = f"{self.root}/{step.path}"
        try:
            with self.fs.open_input_stream(f"{path}/{MANIFEST}") as stream:
                manifest = json.loads(stream.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        base = f"{path}/{manifest['attempt']}"
        infos = self.fs.get_file_info([f"{base}/{name}" for name in manifest["files"]])
        for (name, meta), info in zip(manifest["files"].items(), infos, strict=True):
            if info.type != pafs.FileType.File or info.size != meta["size"]:
                warnings.warn(f"{base}/{name} is damaged: made again", stacklevel=2)
                return None
        return Artifact(self, step.path, manifest)

    @contextlib.contextmanager
    def attempt(self, step: Step, inputs: Mapping[str, Artifact]) -> Iterator[Attempt]:
        """A writer's own directory; `commit` makes it the artifact.

        An error discards it, unless it is resumable: then a later attempt takes over its files.
        """
        attempt = Attempt(self, step, f"attempt-{uuid.uuid4().hex[:12]}", dict(inputs))
        self.fs.create_dir(attempt.base, recursive=True)
        try:
            yield attempt
        except BaseException:
            if not attempt.resumable:
                with contextlib.suppress(OSError):
                    self.fs.delete_dir(attempt.base)
            raise


@dataclass
class Attempt:
    """One writer's directory below an artifact. Picklable: actors write files into it."""

    store: Store
    step: Step
    name: str
    inputs: dict[str, Artifact]
    started: float = field(default_factory=time.time)
    resumable: bool = False
    """Set by `resume`: an error leaves the files for the next attempt."""

    @property
    def base(self) -> str:
        """On the store's file system."""
        return f"{self.store.root}/{self.step.path}/{self.name}"

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """An output stream to a new file of the attempt, which is there whole or not at all."""
        target = f"{self.base}/{name}"
        if not self.store.is_local:  # an object appears when its upload is complete
            with self.store.fs.open_output_stream(target) as sink:
                yield sink
            return
        staged = Path(f"{self.base}/{_UNFINISHED}{uuid.uuid4().hex[:8]}-{Path(name).name}")
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        staged.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.store.fs.open_output_stream(str(staged)) as sink:
                yield sink
            staged.replace(target)
        finally:
            staged.unlink(missing_ok=True)

    def put_table(self, table: pa.Table, name: str = "part-00000.parquet") -> None:
        """Write a table as one Parquet file; the default name is that of a single part."""
        with self.open(name) as sink:
            pq.write_table(table, sink)

    def put_directory(self, folder: Path) -> None:
        """Copy every file of a local directory into the attempt."""
        pafs.copy_files(str(folder), self.base, pafs.LocalFileSystem(), self.store.fs)

    def resume(self, accept: Callable[[str, BinaryIO], bool]) -> list[str]:
        """Take over files that unfinished attempts at this artifact left behind.

        Only attempts that read the same inputs count; their files are linked or copied, never
        moved, since their writer may still live.

        Args:
            accept: given a file's name and content, whether it is one of this attempt's files.

        Returns:
            The names taken over. From now on an error leaves this attempt's files as well.
        """
        fs = self.store.fs
        taken: list[str] = []
        for other in self._alike():
            for path in _files(fs, other):
                name = path.removeprefix(f"{other}/")
                if name in taken or Path(name).name.startswith("."):
                    continue
                with fs.open_input_file(path) as stream:
                    good = accept(name, stream)
                if good:
                    self._take(path, name)
                    taken.append(name)
        with self.open(_INPUTS) as sink:
            sink.write(self._input_record())
        self.resumable = True
        return sorted(taken)

    def notes(self, prefix: str) -> list[str]:
        """Names of hidden files in this attempt and in unfinished ones that read the same inputs.

        Args:
            prefix: begins with a dot: such files are no part of the artifact, but survive a kill.
        """
        found: list[str] = []
        for base in (self.base, *self._alike()):
            with contextlib.suppress(FileNotFoundError):  # swept away by a winner
                names = [Path(path).name for path in _files(self.store.fs, base)]
                found += [name for name in names if name.startswith(prefix)]
        return found

    def _alike(self) -> Iterator[str]:
        """Directories of other attempts at the same artifact that read the same inputs."""
        for other in self._others():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                with self.store.fs.open_input_stream(f"{other}/{_INPUTS}") as stream:
                    same = stream.read() == self._input_record()
                if same:
                    yield other

    def _take(self, path: str, name: str) -> None:
        target = f"{self.base}/{name}"
        if self.store.is_local:
            with contextlib.suppress(OSError):  # a file system without links gets a copy
                Path(target).hardlink_to(path)
                return
            with self.open(name) as sink, open(path, "rb") as source:
                shutil.copyfileobj(source, sink)
        else:
            self.store.fs.copy_file(path, target)

    def _others(self) -> list[str]:
        """Directories of other attempts at the same artifact."""
        selector = pafs.FileSelector(f"{self.store.root}/{self.step.path}")
        return sorted(
            info.path
            for info in self.store.fs.get_file_info(selector)
            if info.type == pafs.FileType.Directory and not info.path.endswith(f"/{self.name}")
        )

    def _checksums(self) -> dict[str, dict[str, Any]]:
        """Size and checksum per file; not our notes, nor what a killed worker left unfinished."""
        fs, found = self.store.fs, {}
        for path in _files(fs, self.base):
            name = path.removeprefix(f"{self.base}/")
            if not Path(name).name.startswith("."):
                size = fs.get_file_info(path).size
                found[name] = {"size": size, "sha256": sha256(fs.open_input_stream(path))}
        return found

    def _input_record(self) -> bytes:
        return json.dumps(self._input_checksums()).encode()

    def _input_checksums(self) -> dict[str, dict[str, str]]:
        return {
            key: {"path": one.step_path, "checksum": one.checksum}
            for key, one in sorted(self.inputs.items())
        }

    def commit(self, counts: Mapping[str, Any], used: Mapping[str, Any] | None = None) -> Artifact:
        """Checksum the files and write the manifest; if another attempt stands, that one wins.

        Args:
            used: workers, batch sizes and the like, for the manifest.
        """
        try:
            files = self._checksums()
        except FileNotFoundError:  # the winner of a race has swept this attempt away
            files = {}
        if (standing := self.store.find(self.step)) is not None:
            with contextlib.suppress(OSError):
                self.store.fs.delete_dir(self.base)
            return standing
        manifest = {
            "format": 1,
            "kind": self.step.kind,
            "name": self.step.name,
            "digest": self.step.digest,
            "step": type(self.step).__name__,
            "spec": dict(self.step.spec()),
            "attempt": self.name,
            "inputs": self._input_checksums(),
            "files": files,
            "counts": dict(counts),
            "facts": dict(self.step.facts()),
            "used": dict(used or {}),
            "storage": self.store.shown,
            "seconds": round(time.time() - self.started, 3),
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": platform.node(),
            "versions": versions(),
        }
        target = f"{self.store.root}/{self.step.path}/{MANIFEST}"
        text = json.dumps(manifest, indent=1, sort_keys=True).encode()
        if self.store.is_local:  # a local write is not atomic, a rename is
            staged = Path(f"{target}.{self.name}")
            staged.write_bytes(text)
            staged.replace(target)
        else:
            with self.store.fs.open_output_stream(target) as out:
                out.write(text)
        for other in self._others():  # a writer that still lives finds the manifest and gives up
            with contextlib.suppress(OSError):
                self.store.fs.delete_dir(other)
        return Artifact(self.store, self.step.path, json.loads(text))


def _files(fs: pafs.FileSystem, base: str) -> list[str]:
    infos = fs.get_file_info(pafs.FileSelector(base, recursive=True))
    return sorted(info.path for info in infos if info.type == pafs.FileType.File)


def versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
