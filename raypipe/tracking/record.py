"""One record for a tracking server: a line of JSON, and files beside it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe.storage.files import in_home, make_folder, open_own

DAMAGED = "damaged"
"""The verb of a record whose line cannot be read."""
_FIELDS = {"verb": str, "run": str, "content": dict}


@dataclass(frozen=True)
class Record:
    """One thing to tell the server."""

    number: int
    verb: str
    run: str
    """Our id of the run that the record belongs to."""
    content: Mapping[str, Any]
    """The verb's arguments, as JSON values."""
    files: tuple[Path, ...] = ()
    end: int = 0
    """The offset in bytes at which the next record begins."""


def line_of(verb: str, run: str, content: Mapping[str, Any]) -> bytes:
    """The line of a record, with its end."""
    return json.dumps({"verb": verb, "run": run, "content": dict(content)}).encode() + b"\n"


def fields_of(line: bytes) -> dict[str, Any]:
    """The verb, run and content that a line was made of; the verb is `DAMAGED` if it was not."""
    with contextlib.suppress(ValueError, RecursionError):
        fields = json.loads(line)
        if (
            isinstance(fields, dict)
            and all(isinstance(fields.get(name), kind) for name, kind in _FIELDS.items())
            and isinstance(fields["content"].get("parent"), str | None)
        ):
            return fields
    return {"verb": DAMAGED, "run": "", "content": {}}


def is_damage(tail: bytes) -> bool:
    """Whether bytes without an end of line are not the first ones of a record.

    A process that is killed leaves the first bytes of a line. A machine that loses its power may
    leave zeros, where the disk had the file's new length and not its content.
    """
    return bool(tail) and (not tail.startswith(b"{") or b"\0" in tail)


def keep(source: Path | bytes, target: Path) -> None:
    """Link a file or the files of a folder; copy them where the file system has no links, and those
    that others may read: a link has no rights of its own."""
    if isinstance(source, bytes):
        make_folder(target.parent)
        with open_own(target, "wb") as out:
            out.write(source)
    elif source.is_dir():
        for file in source.rglob("*"):
            if file.is_file():
                keep(file, target / file.relative_to(source))
    else:
        make_folder(target.parent)
        with contextlib.suppress(OSError):
            if in_home(source) or not in_home(target):
                os.link(source.resolve(), target)
                return
        with source.open("rb") as content, open_own(target, "wb") as out:
            shutil.copyfileobj(content, out)
