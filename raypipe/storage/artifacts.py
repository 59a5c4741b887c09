"""Content-addressed artifacts on any pyarrow filesystem: the only interface between steps.

`<storage>/<kind>/<name>-<digest>/manifest.json` stands beside `<attempt>/` directories. A writer
fills its own attempt and writes the manifest last, with one PUT: no manifest, no artifact. Readers
follow the manifest to the winning attempt and read nothing else.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from raypipe.config import digest
from raypipe.storage.attempts import AttemptFolder, is_note
from raypipe.storage.cache import RemoteFolder, localize, localized
from raypipe.storage.files import KnownFile, collected
from raypipe.storage.outside import Naming
from raypipe.storage.reuse import refusal
from raypipe.storage.root import StorageRoot

MANIFEST = "manifest.json"
_INPUTS = ".inputs.json"
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
        """The manifest's checksum, which downstream manifests record."""
        return digest(dict(self.manifest), 32)

    @property
    def counts(self) -> dict[str, Any]:
        return dict(self.manifest["counts"])

    @property
    def uri(self) -> str:
        """The artifact's address for people and records; without passwords, so nothing opens it."""
        return f"{self.store.shown.rstrip('/')}/{self.step_path}"

    @property
    def files(self) -> list[str]:
        return sorted(self.manifest["files"])

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
        """The committed artifact of `step`; None if there is none, one of its files is damaged, or
        it is refused (reuse).

        A file is damaged that is not there or has another size than committed.
        """
        path = f"{self.root}/{step.path}"
        if (manifest := self.manifest(step)) is None:
            return None
        base = f"{path}/{manifest['attempt']}"
        infos = self.fs.get_file_info([f"{base}/{name}" for name in manifest["files"]])
        for (name, meta), info in zip(manifest["files"].items(), infos, strict=True):
            if info.type != pafs.FileType.File or info.size != meta["size"]:
                warnings.warn(f"{base}/{name} is damaged: made again", stacklevel=2)
                return None
        if (reason := refusal(step, manifest, self.manifest)) is not None:
            warnings.warn(f"{path}: {reason}: made again", stacklevel=2)
            return None
        return Artifact(self, step.path, manifest)

    def manifest(self, step: Step) -> dict[str, Any] | None:
        """What was committed, whatever became of its files; None if nothing was."""
        try:
            with self.fs.open_input_stream(f"{self.root}/{step.path}/{MANIFEST}") as stream:
                manifest: dict[str, Any] = json.loads(stream.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        return manifest

    @contextlib.contextmanager
    def attempt(self, step: Step, inputs: Mapping[str, Artifact]) -> Iterator[Attempt]:
        """A writer's own folder; `commit` makes it the artifact.

        An error discards the folder, unless the attempt is resumable: then a later attempt takes
        over its files.
        """
        attempt = Attempt(self, step, f"attempt-{uuid.uuid4().hex[:12]}", dict(inputs))
        self.fs.create_dir(attempt.base, recursive=True)
        try:
            yield attempt
        except BaseException:
            if not attempt.resumable:
                attempt.discard()
            raise


@dataclass
class Attempt(AttemptFolder):
    """One writer's work on an artifact: its folder, and what the manifest will say of it."""

    store: Store
    step: Step
    name: str
    inputs: dict[str, Artifact]
    started: float = field(default_factory=time.time)
    resumable: bool = False
    """Set by `resume`: an error leaves the files for the next attempt."""
    outside: Sequence[KnownFile] = ()
    """Files from outside that the step reads; a resumable step checks them before it writes what a
    later attempt would take over."""

    def resume(self, accept: Callable[[str, BinaryIO], bool]) -> list[str]:
        """Take over files that unfinished attempts at this artifact left behind.

        Only attempts that read the same inputs count. Their files are linked or copied, never
        moved: their writer may still live.

        Args:
            accept: given a file's name and content, whether the file belongs to this attempt.

        Returns:
            The names taken over. From now on an error leaves this attempt's files as well.
        """
        taken: list[str] = []
        for folder in self._alike():
            for path in self.store.files(folder):
                name = path.removeprefix(f"{folder}/")
                if name in taken or is_note(name):
                    continue
                with self.store.fs.open_input_file(path) as stream:
                    accepted = accept(name, stream)
                if accepted:
                    self.link(path, name)
                    taken.append(name)
        with self.open(_INPUTS) as sink:
            sink.write(self._input_record())
        self.resumable = True
        return sorted(taken)

    def notes(self, prefix: str) -> list[str]:
        """Names of notes in this attempt and in unfinished ones that read the same inputs.

        Args:
            prefix: of the names, beginning with a dot; a note survives a writer that is killed.
        """
        notes: list[str] = []
        for folder in (self.base, *self._alike()):
            with contextlib.suppress(FileNotFoundError):  # swept away by a winner
                names = [Path(path).name for path in self.store.files(folder)]
                notes += [name for name in names if name.startswith(prefix)]
        return notes

    def _alike(self) -> Iterator[str]:
        """Folders of other attempts at this artifact that read the same inputs."""
        for folder in self.others():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                with self.store.fs.open_input_stream(f"{folder}/{_INPUTS}") as stream:
                    same = stream.read() == self._input_record()
                if same:
                    yield folder

    def _input_record(self) -> bytes:
        return json.dumps(self._input_checksums()).encode()

    def _input_checksums(self) -> dict[str, dict[str, str]]:
        return {
            name: {"path": artifact.step_path, "checksum": artifact.checksum}
            for name, artifact in sorted(self.inputs.items())
        }

    def commit(self, counts: Mapping[str, Any], used: Mapping[str, Any] | None = None) -> Artifact:
        """Checksum the files and write the manifest; if another attempt's stands, return that one.

        Args:
            used: workers, batch sizes and the like, for the manifest.
        """
        try:
            files = self.checksums()
        except FileNotFoundError:  # the winner of a race has swept this attempt away
            files = {}
        if (standing := self.store.find(self.step)) is not None:
            self.discard()
            return standing
        manifest = self._manifest(files, counts, used or {})
        text = json.dumps(manifest, indent=1, sort_keys=True)
        self._publish(text.encode())
        for folder in self.others():  # a writer that still lives finds the manifest and gives up
            self.discard(folder)
        return Artifact(self.store, self.step.path, json.loads(text))

    def _manifest(
        self, files: Mapping[str, Any], counts: Mapping[str, Any], used: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            "format": 1,
            "kind": self.step.kind,
            "name": self.step.name,
            "digest": self.step.digest,
            "step": type(self.step).__name__,
            "spec": dict(self.step.naming.spec),
            "attempt": self.name,
            "inputs": self._input_checksums(),
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

    def _publish(self, manifest: bytes) -> None:
        """Write the manifest at once: readers see all of it or nothing."""
        target = f"{self.store.root}/{self.step.path}/{MANIFEST}"
        if self.store.is_local:  # a local write is not atomic, a rename is
            staged = Path(f"{target}.{self.name}")
            staged.write_bytes(manifest)
            staged.replace(target)
        else:
            with self.store.fs.open_output_stream(target) as sink:
                sink.write(manifest)


def versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    installed = {"python": platform.python_version()}
    for name in _VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed
