"""Stores with a few artifacts of numbers, and what is left over beside them."""

from __future__ import annotations

import os
from pathlib import Path

from number_steps import Number, Sum

from raypipe.storage.artifacts import Artifact, Store
from raypipe.storage.builder import Builder

DAY_S = 24 * 3600.0


def three(store: Store) -> tuple[Artifact, Artifact, Artifact]:
    """7, their sum with itself, and 8, which nothing was made from."""
    builder = Builder(store)
    total = builder.get(Sum((Number(7, "seven"),)))
    return builder.get(Number(7, "seven")), total, builder.get(Number(8, "eight"))


def leave_attempt(folder: Path, name: str, size: int = 10, days: float = 2.0) -> Path:
    """An attempt without an end, into which nobody has written for some days."""
    attempt = folder / name
    attempt.mkdir(parents=True)
    (attempt / "part-00000.parquet").write_bytes(b"x" * size)
    return aged(attempt, days)


def aged(folder: Path, days: float) -> Path:
    """The folder and all below it, as if last written to some days ago."""
    for path in [*folder.rglob("*"), folder]:
        time = path.stat().st_mtime - days * DAY_S
        os.utime(path, (time, time))
    return folder
