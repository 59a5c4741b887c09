"""Attempts that look older, or like those of another machine."""

from __future__ import annotations

import json
import os
from pathlib import Path


def age(folder: Path, seconds: float) -> None:
    """Make everything in a folder look older."""
    for path in [*folder.rglob("*"), folder]:
        stat = path.stat()
        os.utime(path, (stat.st_atime, stat.st_mtime - seconds))


def elsewhere(folder: Path) -> None:
    """Make the attempt one of a process on another machine."""
    name = json.loads((folder / ".writer").read_text())
    (folder / ".writer").write_text(json.dumps({**name, "kernel": "another boot"}))
