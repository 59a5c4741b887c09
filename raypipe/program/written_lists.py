"""What `rerank` and `retrieve` share: their place, and where their lists go."""

from __future__ import annotations

from pathlib import Path

from raypipe.commands.ranked_lists import Ranked, Workplace
from raypipe.config import ConfigError, nearest

PRECISIONS = ("auto", "bf16", "fp16", "fp32")


def place(storage: str | None, precision: str) -> Workplace:
    """Where and how the work is done.

    Raises:
        ConfigError: no such precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision {precision}{nearest(precision, PRECISIONS)}")
    return Workplace(storage, precision)  # type: ignore[arg-type]


def checked_out(out: Path | None) -> None:
    """Refuse a file that cannot be written, before work.

    Raises:
        ConfigError: its folder is not there.
    """
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: no directory {out.absolute().parent}; make it first")


def shown(ranked: Ranked, out: Path | None) -> None:
    """Write the lists, and say what was done."""
    for line in ranked.lines():
        print(line)
    if out is None:
        print(f"lists: {ranked.artifact.uri} (--out FILE writes a TREC run)")
    else:
        print(f"lists of {ranked.write(out)} queries: {out}")
