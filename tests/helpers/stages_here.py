"""Stages whose workers Ray Train would start, in this process: one worker of one."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from raypipe.resources import Resources
from raypipe.storage.builder import Builder


class SlotsHere:
    """Stands in for training slots."""

    shared = False

    def rest(self) -> None:
        """No process waits for work."""

    def run(
        self,
        work: Any,
        resources: Any,
        key: str,
        on_report: Callable[[dict[str, Any]], None] | None = None,
    ) -> list[Any]:
        def tell(report: dict[str, Any]) -> bool:
            if on_report is not None:
                on_report(report)
            return True

        return [work.run(0, 1, tell)]


def trains_here(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> Builder:
    """The builder, whose stages train in this process."""
    import ray.train

    alone = types.SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(ray.train, "get_context", lambda: alone)
    monkeypatch.setattr(Resources, "use_gpu", lambda self: False)  # which asks a cluster
    resources = Resources(cpus_per_worker=1)
    context = replace(builder.context, slots=SlotsHere(), precision="fp32", resources=resources)
    return Builder(builder.store, context)
