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
from raypipe.files import home, locked, sha256

MANIFEST = "manifest.json"
_VERSIONED = ("raypipe", "ray", "torch", "transformers", "pyarrow", "numpy", "bm25s")


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
        return f"{self.store.uri.rstrip('/')}/{self.step_path}"

    @property
    def files(self) -> list[str]:
        return sorted(self.manifest["files"])

    def table(self) -> pa.Table:
        """All part-*.parquet files in order, as one table."""
        folder = self.local()
        parts = [name for name in self.files if name.endswith(".parquet")]
        return pa.concat_tables([pq.read_table(folder / name) for name in parts])

    def local(self) -> Path:
        """A directory on this machine with the files; copied once per node if storage is remote."""
        return localize(self)


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
        probe = f"{self.root}/.probe-{uuid.uuid4().hex[:8]}"
        try:
            self.fs.create_dir(self.root, recursive=True)
            with self.fs.open_output_stream(probe) as out:
                out.write(b"raypipe")
            self.fs.delete_file(probe)
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(
                f"storage {self.uri} cannot be written ({error}); set storage= to a writable "
                "directory or bucket, or $RAYPIPE_HOME"
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
        """A writer's own directory; `commit` makes it the artifact, an error discards it."""
        attempt = Attempt(self, step, f"attempt-{uuid.uuid4().hex[:12]}", dict(inputs))
        self.fs.create_dir(attempt.base, recursive=True)
        try:
            yield attempt
        except BaseException:
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

    @property
    def base(self) -> str:
        """On the store's file system."""
        return f"{self.store.root}/{self.step.path}/{self.name}"

    def open(self, name: str) -> BinaryIO:
        """An output stream to a new file of the attempt."""
        stream: BinaryIO = self.store.fs.open_output_stream(f"{self.base}/{name}")
        return stream

    def put_table(self, table: pa.Table, name: str = "part-00000.parquet") -> None:
        """Write a table as one Parquet file; the default name is that of a single part."""
        with self.open(name) as sink:
            pq.write_table(table, sink)

    def put_directory(self, folder: Path) -> None:
        """Copy every file of a local directory into the attempt."""
        pafs.copy_files(str(folder), self.base, pafs.LocalFileSystem(), self.store.fs)

    def commit(self, counts: Mapping[str, Any]) -> Artifact:
        """Checksum the files and write the manifest; if another attempt stands, that one wins."""
        if (standing := self.store.find(self.step)) is not None:
            self.store.fs.delete_dir(self.base)
            return standing
        selector = pafs.FileSelector(self.base, recursive=True)
        files = {
            info.path.removeprefix(self.base).lstrip("/"): {
                "size": info.size,
                "sha256": sha256(self.store.fs.open_input_stream(info.path)),
            }
            for info in sorted(self.store.fs.get_file_info(selector), key=lambda i: i.path)
            if info.type == pafs.FileType.File
        }
        manifest = {
            "format": 1,
            "kind": self.step.kind,
            "name": self.step.name,
            "digest": self.step.digest,
            "step": type(self.step).__name__,
            "spec": dict(self.step.spec()),
            "attempt": self.name,
            "inputs": {
                key: {"path": one.step_path, "checksum": one.checksum}
                for key, one in self.inputs.items()
            },
            "files": files,
            "counts": dict(counts),
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
        return Artifact(self.store, self.step.path, json.loads(text))


def versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def localize(artifact: Artifact) -> Path:
    """The artifact's files in a local directory.

    Local storage is used in place. Remote files are copied once per node, under a file lock, into
    `$RAYPIPE_HOME/cache`, and checked against the manifest.

    Raises:
        OSError: a copied file does not have the committed checksum, or the disk is full.
    """
    store, attempt = artifact.store, artifact.manifest["attempt"]
    base = f"{store.root}/{artifact.step_path}/{attempt}"
    if store.is_local:
        return Path(base)
    target: Path = home() / "cache" / artifact.step_path / attempt
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_suffix(".lock")):
        if not target.is_dir():
            need = sum(meta["size"] for meta in artifact.manifest["files"].values())
            free = shutil.disk_usage(target.parent).free
            if free < need:
                raise OSError(f"{need} bytes needed in {target.parent}, {free} are free")
            staged = target.with_suffix(".part")
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir()
            pafs.copy_files(base, str(staged), store.fs, pafs.LocalFileSystem())
            for name, meta in artifact.manifest["files"].items():
                if sha256((staged / name).open("rb")) != meta["sha256"]:
                    raise OSError(f"{artifact.uri}/{name} does not have its committed checksum")
            staged.rename(target)
    return target


@dataclass
class Builder:
    """Makes artifacts and what they need, each once; what stands in the store is reused.

    Args:
        context: handed to every `Step.run`.
        announce: called with a line when a step starts.
    """

    store: Store
    context: Any = None
    announce: Callable[[str], None] = lambda line: None
    made: set[str] = field(default_factory=set)
    _done: dict[str, Artifact] = field(default_factory=dict)

    def find(self, step: Step) -> Artifact | None:
        """The artifact if it stands, without making it."""
        if step.digest not in self._done and (found := self.store.find(step)) is not None:
            self._done[step.digest] = found
        return self._done.get(step.digest)

    def get(self, step: Step) -> Artifact:
        """The artifact of `step`, made now, with what it needs, if it does not stand."""
        if (found := self.find(step)) is not None:
            return found
        inputs = {n: self.get(one) for n, one in {**step.inputs(), **step.needs()}.items()}
        self.announce(f"{step.kind} {step.name}")
        with self.store.attempt(step, inputs) as attempt:
            counts = step.run(attempt, self.context)
            artifact = attempt.commit(counts)
        self.made.add(step.digest)
        self._done[step.digest] = artifact
        return artifact
