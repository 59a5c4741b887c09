"""Files from outside the storage must stay as they were when a step was named after their content.

`Step.naming` holds them. The builder looks at them before a step runs, and again before what the
step made is committed: so no reader has to, and none is forgotten. Later looks are strict: a file
that was written and written back may have been read in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raypipe.config import ConfigError
from raypipe.storage.files import KnownFile, known_file, signature

_REMEDY = (
    "let nothing write it while a job runs, and run the command again; what is finished stays, "
    "what comes from this file is named anew"
)


@dataclass(frozen=True)
class Naming:
    """What a step's digest is made from, as it was when the digest was first asked for."""

    spec: Mapping[str, Any]
    inputs: Mapping[str, str]
    """Digests of the inputs by name."""
    files: tuple[KnownFile, ...] = ()
    """Files from outside that `spec` names by their content."""


def check_inputs(path: str, naming: Naming, found: Mapping[str, str]) -> None:
    """Refuse inputs that are named by other content than the step was planned with.

    Args:
        path: of the step, for the error.
        found: digests of the artifacts that the step would read, by name.

    Raises:
        ConfigError: an input differs.
    """
    for name, planned in naming.inputs.items():
        if found[name] != planned:
            raise ConfigError(
                f"{path}: expected the {name} with digest {planned}, found {found[name]}: a file "
                f"from outside has changed since the job was planned; {_REMEDY}"
            )


def checked(files: Sequence[KnownFile]) -> tuple[KnownFile, ...]:
    """The files as they are now, which have the content that they had.

    Raises:
        ConfigError: a file is gone or has other content.
    """
    return tuple(_checked(file) for file in files)


def _checked(file: KnownFile) -> KnownFile:
    try:
        if signature(file.path) == file.signature:
            return file
        known = known_file(file.path)
    except OSError as error:
        raise _changed(file, f"none that can be read ({type(error).__name__})") from None
    if known.checksum != file.checksum:
        raise _changed(file, f"content with checksum {known.checksum[:12]}")
    return known


def check_read(files: Sequence[KnownFile]) -> None:
    """Refuse files that something wrote since `checked` returned them.

    Where only device, inode or ctime differ, the content decides: links and rights change a ctime,
    and network file systems change inodes.

    Raises:
        ConfigError: a file is gone, has other content, or another size or mtime.
    """
    for file, now in zip(files, checked(files), strict=True):
        if file.signature[2:4] != now.signature[2:4]:
            raise _changed(file, "that it was written since")


def _changed(file: KnownFile, found: str) -> ConfigError:
    return ConfigError(
        f"{file.path}: expected the content that this job was planned with (checksum "
        f"{file.checksum[:12]}), found {found}; {_REMEDY}"
    )
