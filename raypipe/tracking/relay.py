"""Tracking from anywhere in the cluster: one actor on the driver's node does all the writing.

No call waits: the actor keeps records and sends them when the server takes them. So a slow or dead
tracking server never slows training, and a sqlite file has one writer. The actor may be killed at
any moment: it starts again.
"""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raypipe.storage.address import Address
from raypipe.tracking.names import ROW_TAG, run_page
from raypipe.tracking.recorder import Kind, Recorder
from raypipe.tracking.spool import new_name

_log = logging.getLogger(__name__)


class _Writer:
    """The actor: one job's Recorder, and what its sender wants printed.

    Everything else is in the spool, so that an actor that was killed goes on where it was: Ray
    starts it again with the same arguments, and repeats the calls that it had not answered.
    """

    def __init__(
        self,
        uri: str | None,
        experiment: str,
        program: str = "",
        name: str | None = None,
        stamp: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._lines: list[str] = []
        self._recorder = Recorder(uri, experiment, self._lines.append, program, name, stamp, tags)
        if self._recorder.spool.is_continued and (open_runs := self._recorder.spool.unfinished()):
            self._recorder.watch(open_runs[-1])  # the job's own

    def links(self) -> dict[str, list[str]]:
        self._recorder.drain(0.0)
        server = self._recorder.uri.place
        experiment = self._recorder.sender.server.experiment_id
        pages: dict[str, list[str]] = {}
        for run, content in self._recorder.spool.started():
            row, run_id = content.get("tags", {}).get(ROW_TAG), self._recorder.server_run(run)
            if row is not None and run_id:
                pages.setdefault(row, []).append(run_page(server, experiment, run_id))
        return pages

    def call(self, verb: str, *args: Any, **kwargs: Any) -> None:
        getattr(self._recorder, verb)(*args, **kwargs)

    def lines(self) -> list[str]:
        lines, self._lines[:] = list(self._lines), []
        return lines

    def stored(self) -> int:
        return self._recorder.spool.written

    def drain(self, patience: float) -> dict[str, Any]:
        waiting, _ = self._recorder.drain(patience)
        recorder = self._recorder
        return {
            "waiting": waiting,
            "refused": recorder.sender.refused,
            "lost": recorder.lost,
            "uri": str(recorder.uri),
            "folder": str(recorder.spool.folder),
            "runs": dict(recorder.spool.runs),
            "experiment_id": recorder.sender.server.experiment_id,
            "place": recorder.uri.place,
            "files": recorder.sender.server.files,
        }

    def close(self) -> None:
        self._recorder.close()


class Relay:
    """The Recorder's verbs for every process of the cluster. Picklable."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self._arguments = arguments
        self._gave_up = False
        self._actor = self._started()

    @classmethod
    def open(cls, uri: str | None, experiment: str, tags: Mapping[str, str] | None = None) -> Relay:
        """Start the writing actor on this node; it ends with the driver.

        Args:
            tags: of every run, and of versions of the registered model.
        """
        program, stamp = Path(sys.argv[0]).name, time.strftime("%Y-%m-%d %H:%M:%S")
        return cls((uri and Address(uri), experiment, program, new_name(), stamp, dict(tags or {})))

    def _started(self) -> ActorHandle:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        return (
            ray.remote(_Writer)
            .options(scheduling_strategy=here, **options)
            .remote(*self._arguments)
        )

    def start(self, name: str, kind: Kind, parent: str | None, params: Any, tags: Any) -> str:
        """Begin a run; return our id of the run."""
        run = uuid.uuid4().hex
        self.send("start", run, name, kind, parent, params, tags)
        return run

    def send(self, verb: str, *args: Any, **kwargs: Any) -> None:
        """Call any other verb of the Recorder."""
        self._actor.call.remote(verb, *args, **kwargs)

    def _ask(self, verb: str, *args: Any) -> Any:
        """The actor's answer; None if there is none, as tracking ends no job.

        An actor that Ray does not start again, because somebody ended it for good, is started here.
        """
        if self._gave_up:
            return None
        try:
            try:
                return ray.get(getattr(self._actor, verb).remote(*args))
            except ray.exceptions.RayActorError:
                self._actor = self._started()
                return ray.get(getattr(self._actor, verb).remote(*args))
        except ray.exceptions.RayError as error:
            self._gave_up = isinstance(error, ray.exceptions.RayActorError)
            why = (str(error).strip().splitlines() or [""])[-1]  # a traceback ends in the error
            _log.warning("tracking: %s failed, and the job goes on: %s", verb, why)
            return None

    def stored(self) -> None:
        """Wait until everything that this process sent is on disk."""
        self._ask("stored")

    def say(self, say: Callable[[str], None]) -> None:
        """Print the sender's warnings since the last call."""
        for line in self._ask("lines") or ():
            say(line)

    def links(self) -> dict[str, list[str]]:
        """By row name, the pages of its runs; runs that the server has not taken are left out."""
        pages: dict[str, list[str]] | None = self._ask("links")
        return pages or {}

    def drain(self, say: Callable[[str], None], patience: float = 5.0) -> dict[str, Any]:
        """Send what can be sent, print what cannot; return the server's address, ids and counts."""
        tracked: dict[str, Any] | None = self._ask("drain", patience)
        if tracked is None:
            return {"runs": {}}
        self.say(say)
        if tracked["waiting"]:
            say(
                f"tracking: {tracked['waiting']} records wait in {tracked['folder']}; the next job "
                "sends them, or: python -m raypipe.tracking --send"
            )
        if tracked["refused"]:
            say(f"tracking: {tracked['refused']} records were refused by {tracked['uri']}")
        if tracked["lost"]:
            say(f"tracking: {tracked['lost']} records could not be written to {tracked['folder']}")
        return tracked

    def close(self) -> None:
        """Let go of the spool."""
        self._ask("close")


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
