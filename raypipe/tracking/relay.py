"""Tracking from anywhere in the cluster: one actor on the driver's node does all the writing.

No call waits: the actor keeps records and sends them when the server takes them. So a slow or dead
tracking server never slows training, and a sqlite file has one writer.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raypipe.storage.files import without_secrets
from raypipe.tracking.names import ROW_TAG, run_page
from raypipe.tracking.recorder import Kind, Recorder


class _Writer:
    """The actor: one job's Recorder, what its sender wants printed, and the runs of every row."""

    def __init__(self, uri: str | None, experiment: str, program: str = "") -> None:
        self._lines: list[str] = []
        self._recorder = Recorder(uri, experiment, self._lines.append, program)
        self._rows: dict[str, str] = {}

    def start(self, run: str, name: str, kind: Kind, parent: Any, params: Any, tags: Any) -> None:
        if ROW_TAG in tags:
            self._rows[run] = tags[ROW_TAG]
        self._recorder.start(run, name, kind, parent, params, tags)

    def links(self) -> dict[str, list[str]]:
        self._recorder.drain(0.0)
        server = without_secrets(self._recorder.uri)
        experiment = self._recorder.sender.server.experiment_id
        pages: dict[str, list[str]] = {}
        for run, row in self._rows.items():
            if run_id := self._recorder.server_run(run):
                pages.setdefault(row, []).append(run_page(server, experiment, run_id))
        return pages

    def call(self, verb: str, *args: Any, **kwargs: Any) -> None:
        getattr(self._recorder, verb)(*args, **kwargs)

    def lines(self) -> list[str]:
        lines, self._lines[:] = list(self._lines), []
        return lines

    def drain(self, patience: float) -> dict[str, Any]:
        waiting, refused = self._recorder.drain(patience)
        recorder = self._recorder
        return {
            "waiting": waiting,
            "refused": refused,
            "uri": without_secrets(recorder.uri),
            "folder": str(recorder.spool.folder),
            "runs": dict(recorder.spool.runs),
            "experiment_id": recorder.sender.server.experiment_id,
        }

    def close(self) -> None:
        self._recorder.close()


class Relay:
    """The Recorder's verbs for every process of the cluster. Picklable."""

    def __init__(self, actor: ActorHandle) -> None:
        self._actor = actor

    @classmethod
    def open(cls, uri: str | None, experiment: str) -> Relay:
        """Start the writing actor on this node; it ends with the driver."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": 0}
        program = Path(sys.argv[0]).name
        return cls(ray.remote(_Writer).options(**options).remote(uri, experiment, program))

    def start(self, name: str, kind: Kind, parent: str | None, params: Any, tags: Any) -> str:
        """Begin a run; return our id of the run."""
        run = uuid.uuid4().hex
        self._actor.start.remote(run, name, kind, parent, params, tags)
        return run

    def send(self, verb: str, *args: Any, **kwargs: Any) -> None:
        """Call any other verb of the Recorder."""
        self._actor.call.remote(verb, *args, **kwargs)

    def say(self, say: Callable[[str], None]) -> None:
        """Print the sender's warnings since the last call."""
        for line in ray.get(self._actor.lines.remote()):
            say(line)

    def links(self) -> dict[str, list[str]]:
        """By row name, the pages of its runs; runs that the server has not taken are left out."""
        pages: dict[str, list[str]] = ray.get(self._actor.links.remote())
        return pages

    def drain(self, say: Callable[[str], None], patience: float = 5.0) -> dict[str, Any]:
        """Send what can be sent, print what cannot; return the server's address, ids and counts."""
        tracked: dict[str, Any] = ray.get(self._actor.drain.remote(patience))
        self.say(say)
        if tracked["waiting"]:
            say(
                f"tracking: {tracked['waiting']} records wait in {tracked['folder']}; the next job "
                "sends them, or: python -m raypipe.tracking --send"
            )
        if tracked["refused"]:
            say(f"tracking: {tracked['refused']} records were refused by {tracked['uri']}")
        return tracked

    def close(self) -> None:
        """Let go of the spool."""
        ray.get(self._actor.close.remote())


class StageReports:
    """A `Context.on_report` that logs a stage's reports as metrics of its tracked run."""

    def __init__(self, relay: Relay, runs: Mapping[str, str]) -> None:
        self._relay = relay
        self._runs = runs

    def __call__(self, digest: str, metrics: dict[str, Any]) -> None:
        if digest in self._runs:
            self._relay.send("log_series", self._runs[digest], series(metrics["rows"]))


def series(rows: list[dict[str, float]]) -> dict[str, list[tuple[int, float]]]:
    """A stage's history as curves: by name, (step, value) pairs."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step":
                curves.setdefault(name, []).append((int(row["step"]), value))
    return curves
