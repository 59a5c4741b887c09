"""Checkpoints: the snapshots of an unfinished stage as files on any pyarrow.fs.

`<base>/step-00000040-<token>/` holds safetensors and JSON; its manifest is written last. A
directory without manifest, or with a file whose checksum is not the manifest's, is not used. So an
interrupted upload or a full disk costs the steps since the checkpoint before.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.fs as pafs
from pydantic import BaseModel

from raypipe.storage.files import sha256

if TYPE_CHECKING:
    from raypipe.train.snapshot import Snapshot


_MANIFEST, _FACTS = "manifest.json", "facts.json"
_FORMAT: Literal[1] = 1
_NAME = re.compile(r"step-\d{8,}-")


class CheckpointFile(BaseModel):
    """What the manifest says of a file."""

    size: int
    sha256: str


class CheckpointManifest(BaseModel):
    """The file that makes a checkpoint complete."""

    format: Literal[1]
    step: int
    origin: dict[str, Any]
    files: dict[str, CheckpointFile]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one stage; picklable if the file system is."""

    fs: Any
    """A pyarrow file system."""
    base: str
    """Directory on `fs`; need not exist."""
    origin: Mapping[str, Any]
    """The checksums of the stage's inputs, as JSON values: beside the digest they decide what the
    stage computes. Checkpoints of another origin are not used."""
    keep: int = 2
    """How many complete checkpoints remain."""
    earlier: Sequence[str] = ()
    """Directories of other writers, whose checkpoints are read and never removed."""

    def new_name(self, step: int) -> str:
        """A new name for the checkpoint after `step` steps; no two writers get the same."""
        return f"step-{step:08d}-{uuid.uuid4().hex[:8]}"

    def write(self, snapshot: Snapshot, name: str) -> str:
        """Write a snapshot under `name`, then delete what is too old; returns its path.

        Raises:
            OSError: the storage cannot be written to (full, gone); older checkpoints are untouched.
        """
        path = f"{self.base}/{name}"
        try:
            self.fs.create_dir(path, recursive=True)
            files = {_FACTS: self._put(f"{path}/{_FACTS}", json.dumps(snapshot.facts).encode())}
            for part, tensors in snapshot.tensors.items():
                import safetensors.torch

                data = safetensors.torch.save(tensors)
                files[f"{part}.safetensors"] = self._put(f"{path}/{part}.safetensors", data)
            manifest = {
                "format": _FORMAT,
                "step": snapshot.step,
                "origin": dict(self.origin),
                "files": files,
            }
            self._put(f"{path}/{_MANIFEST}", json.dumps(manifest, sort_keys=True).encode())
        except (OSError, pa.ArrowException) as error:
            with contextlib.suppress(OSError, pa.ArrowException):
                self.fs.delete_dir(path)  # the space is needed
            raise self.not_written(f"the checkpoint of step {snapshot.step}", path, error) from None
        self.prune()
        return path

    def newest(self) -> str | None:
        """The name of the newest complete checkpoint, every file checked; None without any."""
        return next((name for name in self.names() if self._sound(name)), None)

    def read(self, name: str) -> Snapshot:
        """The snapshot of a name that `newest` gave."""
        import safetensors.torch

        from raypipe.train.snapshot import Snapshot

        path, tensors = self._path(name), {}
        manifest = self._manifest(name)
        assert manifest is not None, f"{path} is incomplete"
        for file in manifest.files:
            if file.endswith(".safetensors"):
                with self.fs.open_input_stream(f"{path}/{file}") as stream:
                    tensors[file.removesuffix(".safetensors")] = safetensors.torch.load(
                        stream.read()
                    )
        with self.fs.open_input_stream(f"{path}/{_FACTS}") as stream:
            return Snapshot(manifest.step, json.loads(stream.read()), tensors)

    def names(self) -> list[str]:
        """The names of all checkpoints, complete or not, latest step first."""
        return sorted((n for base in self._bases for n in self._below(base)), reverse=True)

    @property
    def _bases(self) -> tuple[str, ...]:
        return (self.base, *self.earlier)

    def _below(self, base: str) -> list[str]:
        try:
            infos = self.fs.get_file_info(pafs.FileSelector(base, allow_not_found=True))
        except NotADirectoryError:
            return []
        folders = [info.base_name for info in infos if info.type == pafs.FileType.Directory]
        return [name for name in folders if _NAME.match(name)]

    def _path(self, name: str) -> str:
        """The directory with that name, which no two writers use."""
        infos = self.fs.get_file_info([f"{base}/{name}" for base in self._bases])
        there = [info.path for info in infos if info.type == pafs.FileType.Directory]
        return there[0] if there else f"{self.base}/{name}"

    def prune(self) -> None:
        """Delete what is older than the last `keep` complete checkpoints of this writer."""
        complete = 0
        for name in sorted(self._below(self.base), reverse=True):
            if complete >= self.keep:
                with contextlib.suppress(OSError, pa.ArrowException):  # another writer was faster
                    self.fs.delete_dir(f"{self.base}/{name}")
            elif self._manifest(name) is not None:
                complete += 1

    def not_written(self, what: str, where: str, error: Exception) -> OSError:
        """The error for a file that could not be written; it names the step to go on from."""
        last = "the last checkpoint that can be read"
        with contextlib.suppress(OSError, pa.ArrowException):  # the storage may be gone altogether
            steps = [found.step for name in self.names() if (found := self._manifest(name))]
            last = f"step {steps[0]}" if steps else "the beginning of the stage"
        return OSError(
            f"storage: {what} could not be written to {where} ({error}); free space there or set "
            f"another storage; the same command goes on from {last}"
        )

    def _put(self, path: str, data: bytes) -> dict[str, Any]:
        with self.fs.open_output_stream(path) as sink:
            sink.write(data)
        return {"size": len(data), "sha256": sha256(pa.BufferReader(data))}

    def _manifest(self, name: str) -> CheckpointManifest | None:
        """The manifest of a complete checkpoint of this origin, else None."""
        try:
            with self.fs.open_input_stream(f"{self._path(name)}/{_MANIFEST}") as stream:
                manifest = CheckpointManifest.model_validate_json(stream.read())
        except (OSError, ValueError):  # not there, cut off, or damaged
            return None
        origin = json.loads(json.dumps(dict(self.origin)))
        return manifest if manifest.origin == origin and _FACTS in manifest.files else None

    def _sound(self, name: str) -> bool:
        """Whether the checkpoint is complete and every file has its checksum."""
        manifest = self._manifest(name)
        if manifest is None:
            return False
        path = self._path(name)
        for file, meta in manifest.files.items():
            try:
                checksum = sha256(self.fs.open_input_stream(f"{path}/{file}"))
            except (OSError, ValueError):  # no name of a file is a ValueError
                checksum = ""
            if checksum != meta.sha256:
                warnings.warn(f"{path}/{file} is damaged: not used", stacklevel=2)
                return False
        return True
