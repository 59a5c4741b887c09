"""Tracking from anywhere in the cluster: one actor on the driver's node does all the writing.

Calls are sent without waiting, so a slow or dead tracking server never slows training, and a
sqlite file has one writer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raypipe.tracking import Tracker


class _Writer:
    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._tracker, verb)(*args, **kwargs)

    def lost(self) -> int:
        return self._tracker.lost


class Relay:
    """The Tracker's verbs, from any process. Picklable."""

    def __init__(self, actor: ActorHandle) -> None:
        self._actor = actor

    @classmethod
    def open(cls, tracker: Tracker) -> Relay:
        """Start the writing actor on this node; it ends with the driver."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": 0}
        return cls(ray.remote(_Writer).options(**options).remote(tracker))

    def start(self, name: str, kind: str, parent: str | None, params: Any, tags: Any) -> str:
        """Begin a run; the only call that waits, because its id is needed."""
        run_id: str = ray.get(self._actor.call.remote("start", name, kind, parent, params, tags))
        return run_id

    def send(self, verb: str, *args: Any) -> None:
        """Any other verb of Tracker, not waited for."""
        self._actor.call.remote(verb, *args)

    def flush(self) -> int:
        """Wait until everything sent is written; how many calls were lost."""
        lost: int = ray.get(self._actor.lost.remote())
        return lost


class StageReports:
    """`Context.on_report`: a stage's reports as metrics of its tracked run."""

    def __init__(self, relay: Relay, runs: Mapping[str, str]) -> None:
        self._relay = relay
        self._runs = runs

    def __call__(self, digest: str, metrics: dict[str, Any]) -> None:
        if digest in self._runs:
            self._relay.send("log_series", self._runs[digest], series(metrics["rows"]))


def series(rows: list[dict[str, float]]) -> dict[str, list[tuple[int, float]]]:
    """History rows as curves: name to (step, value)."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step":
                curves.setdefault(name, []).append((int(row["step"]), value))
    return curves
