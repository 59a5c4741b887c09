"""Steps whose chunks Ray would run, in this process."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from raypipe.resources import Context, Resources
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.tables import chunks


def builder_here(store: Store, monkeypatch: pytest.MonkeyPatch) -> Builder:
    """A builder whose steps run their chunks in this process, on CPU."""

    def run(job: Any, rows: int, size: int, attempt: Any, context: Any, **more: Any) -> Any:
        suffix, keep = more.get("suffix", "parquet"), more.get("keep", lambda counts: True)
        todo, total = chunks._plan(rows, size, suffix, attempt, keep)
        work = job.build() if todo else None
        for chunk in todo:
            total.update(chunk.write(work, attempt))
        return chunks._counted(total, attempt)

    replaced = chunks.run_chunks
    for name, module in list(sys.modules.items()):
        if name.startswith("raypipe.") and getattr(module, "run_chunks", None) is replaced:
            monkeypatch.setattr(module, "run_chunks", run)
    return Builder(store, Context(Resources(), progress_bars=False))
