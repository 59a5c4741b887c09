"""Taking over what unfinished attempts at the same artifact left behind."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from raypipe.storage.attempts import AttemptFolder, is_note

INPUTS = ".inputs.json"
"""A note: by name of input, path and checksum of the artifact that an attempt reads."""


@dataclass
class ResumableFolder(AttemptFolder):
    """A writer's folder that knows what was read for its files."""

    inputs: Mapping[str, Any]
    """By name, the artifacts that are read."""
    resumable: bool = False
    """Whether an error leaves the files for the next attempt; `resume` sets it."""
    expected: set[str] = field(default_factory=set)
    """Names of files without which the attempt cannot be committed."""

    def resume(self, accept: Callable[[str, BinaryIO], bool]) -> list[str]:
        """Take over files that unfinished attempts at this artifact left behind.

        Only attempts that read the same inputs count. Their files are linked or copied, never
        moved: their writer may still live.

        Args:
            accept: given a file's name and content, whether the file belongs to this attempt.

        Returns:
            The names taken over. From now on an error leaves this attempt's files as well.
        """
        taken: set[str] = set()
        for folder in self._alike():
            with contextlib.suppress(FileNotFoundError):  # swept away meanwhile
                for path in self.store.files(folder):
                    name = path.removeprefix(f"{folder}/")
                    if name in taken or is_note(name):
                        continue
                    if self._accepted(path, name, accept):
                        taken.add(name)
        self.resumable = True
        self.expected |= taken
        return sorted(taken)

    def _accepted(self, path: str, name: str, accept: Callable[[str, BinaryIO], bool]) -> bool:
        """Whether a file of another attempt belongs to this one, which has it now."""
        with self.store.fs.open_input_file(path) as stream:
            accepted = accept(name, stream)
        if accepted:
            self.link(path, name)
        return accepted

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
            with contextlib.suppress(OSError):
                with self.store.fs.open_input_stream(f"{folder}/{INPUTS}") as stream:
                    same = stream.read() == self._input_record()
                if same:
                    yield folder

    def record_inputs(self) -> None:
        """Note what this attempt reads, for later attempts and for whoever prunes the storage."""
        with self.open(INPUTS) as sink:
            sink.write(self._input_record())

    def _input_record(self) -> bytes:
        return json.dumps(self.input_checksums()).encode()

    def input_checksums(self) -> dict[str, dict[str, str]]:
        """By name of input, the path and the checksum of its artifact."""
        return {
            name: {"path": artifact.step_path, "checksum": artifact.checksum}
            for name, artifact in sorted(self.inputs.items())
        }
