"""The verbs of tracking: records go into the spool at once, and a thread sends them to the server.

One MLflow run per job, children per trial and per row that needs no training, grandchildren per
stage. Only drivers write; no call waits for the server, and none raises because of it.
"""

from __future__ import annotations

import getpass
import logging
import math
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from raypipe.names import encodable
from raypipe.tracking.client import default_uri, import_mlflow, resolved
from raypipe.tracking.names import NAME_TAG, SEED_TAG, distinct_name, file_name, run_name
from raypipe.tracking.orphans import orphans
from raypipe.tracking.sender import Sender, drain, stop
from raypipe.tracking.server import Server, now
from raypipe.tracking.spool import Spool

Kind = Literal["job", "trial", "baseline", "derived", "stage"]
Status = Literal["FINISHED", "FAILED", "KILLED"]
_log = logging.getLogger(__name__)
_SAMPLE_S = 10.0


class Recorder:
    """The writer of one job's tracked runs. Run ids are the caller's own, unique strings.

    Args:
        program: what MLflow shows as the source of the runs, such as sweep.py.
        name: of the spool; a recorder that died goes on in the spool that it had.
        stamp: when the job began, which stands behind the runs' names; empty leaves them as
            they are.
        tags: of every run, and of versions of the registered model.
    """

    def __init__(
        self,
        uri: str | None,
        experiment: str,
        warn: Callable[[str], None] = _log.warning,
        program: str = "",
        name: str | None = None,
        stamp: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.uri, root = resolved(uri or default_uri())
        target = {"uri": self.uri, "experiment": experiment, "artifact_root": root}
        self.spool = Spool.create(target, name=name)
        self.sender = Sender(self.spool, Server(**target, say=warn), warn)
        self.others = orphans(warn, self.uri)
        self.lost = 0
        """The number of records that could not be written down."""
        self._counting = threading.Lock()
        self._warn = warn
        self._watch: _Watch | None = None
        self._origin = {**origin(program), **(tags or {})}
        self._tags, self._stamp = dict(tags or {}), stamp

    def start(
        self,
        run: str,
        name: str,
        kind: Kind,
        parent: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin a run below `parent`."""
        own = {"raypipe.kind": kind, **self._origin, **(tags or {})}
        shown = name
        if self._stamp:
            own.setdefault(NAME_TAG, run_name(name))
            shown = distinct_name(name, own.get(SEED_TAG), self._stamp)
        content = {
            "parent": parent,
            "name": shown,
            "params": _texts(params or {}),
            "tags": _texts({k: v for k, v in own.items() if v not in (None, "")}),
            "at": now(),
        }
        self._say("start", run, content)

    def log(self, run: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log one value per metric; a name may be a measure, see `names.metric_name`."""
        self.log_series(run, {name: [(step, value)] for name, value in metrics.items()})

    def log_series(self, run: str, series: Mapping[str, Iterable[tuple[int, float]]]) -> None:
        """Log whole curves: by name, (step, value) pairs."""
        at = now()
        points = [
            (name, float(value), at, int(step))
            for name, curve in series.items()
            for step, value in curve
        ]
        self._say("metrics", run, {"points": points})

    def tag(self, run: str, tags: Mapping[str, Any]) -> None:
        """Set tags of a run."""
        self._say("tags", run, {"tags": _texts(tags)})

    def log_artifact(self, run: str, path: str | Path, name: str | None = None) -> None:
        """Log a file, or a folder with everything below it, under this name."""
        self._say("artifacts", run, {}, {name or Path(path).name: Path(path)})

    def log_text(self, run: str, text: str, name: str) -> None:
        """Log a text as a file."""
        self.log_bytes(run, encodable(text).encode(), name)

    def log_bytes(self, run: str, content: bytes, name: str) -> None:
        """Log bytes as a file."""
        self._say("artifacts", run, {}, {file_name(name): content})

    def log_dataset(self, run: str, name: str, source: str, digest: str, use: str) -> None:
        """Name an input of the run; `use` is training, validation or test."""
        self._say("dataset", run, {"name": name, "source": source, "digest": digest, "use": use})

    def log_model(
        self,
        run: str,
        checkpoint: str | Path,
        name: str,
        registered: str | None = None,
        metrics: Mapping[str, float] | None = None,
        digest: str = "",
        contest: Mapping[str, Any] | None = None,
        interpolation: Mapping[str, Any] | None = None,
    ) -> None:
        """Log a checkpoint as a pyfunc that re-ranks, or gives vectors.

        Args:
            registered: a name in the model registry: the checkpoint becomes the newest version
                there, with the alias `best`.
            digest: of what decides the scores; nothing is copied if the best version has the same.
            contest: `test`, what names the test set, and `value`, what the model reached there: the
                alias stays with a version that reached more, or that was judged elsewhere.
            interpolation: what the model's scores are mixed with, see `save_pyfunc`.
        """
        points = [(k, float(v), now(), 0) for k, v in (metrics or {}).items()]
        content = {"name": name, "registered": registered, "points": points, "digest": digest}
        content["contest"] = dict(contest or {})
        content["tags"] = _texts(self._tags)
        if interpolation is not None:
            content["interpolation"] = dict(interpolation)
        self._say("model", run, content, {"checkpoint": Path(checkpoint)})

    def finish(self, run: str, status: Status = "FINISHED") -> None:
        """End the run."""
        self._say("finish", run, {"status": status, "at": now()})

    def finish_below(self, run: str) -> None:
        """End the runs below this one that are still open: their writers were stopped or died."""
        for open_run in self.spool.unfinished(run):
            self.finish(open_run, "KILLED")

    def watch(self, run: str) -> None:
        """Sample CPU, memory, disk, network and GPUs of this machine into the run until `close`."""
        if self._watch is None:
            self._watch = _Watch(lambda values, step: self.log(run, values, step))

    def server_run(self, run: str) -> str:
        """The server's id of a run; empty until the run's start is sent."""
        return self.spool.runs.get(run, "")

    def drain(self, patience: float = 5.0) -> tuple[int, int]:
        """Send what can be sent; return the numbers of records that wait, and that never arrive.

        Waits as long as the server takes records, and `patience` seconds for one that is away.
        """
        return drain([self.sender, *self.others], patience), self.sender.refused + self.lost

    def close(self) -> None:
        """Stop sending; the next job sends the records that still wait."""
        if self._watch is not None:
            self._watch.stop()
        stop([self.sender, *self.others])

    def _say(
        self,
        verb: str,
        run: str,
        content: Mapping[str, Any],
        files: Mapping[str, Path | bytes] | None = None,
    ) -> None:
        try:
            self.spool.append(verb, run, content, files)
        except OSError as error:  # a full disk must not end a training
            with self._counting:
                self.lost += 1
            if self.lost == 1:
                self._warn(
                    f"tracking: {verb} could not be written down ({error}); free space; later "
                    "losses are counted, not printed"
                )
        self.sender.wake()


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as a database holds them."""
    return {name: encodable(str(value)) for name, value in values.items()}


class _Watch:
    """A thread that reads MLflow's monitors of this machine."""

    def __init__(self, tell: Callable[[dict[str, float], int], None]) -> None:
        self._tell = tell
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="system-metrics")
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(timeout=10)

    def _work(self) -> None:
        with suppress(Exception):  # figures of the machine are never worth a job
            import_mlflow()
            monitors = _monitors()
            step = 0
            while not self._over.is_set():
                values: dict[str, float] = {}
                for monitor in monitors:
                    monitor.collect_metrics()
                    values |= monitor.aggregate_metrics()
                    monitor.clear_metrics()
                sound = {f"system/{k}": v for k, v in values.items() if math.isfinite(v)}
                self._tell(sound, step)
                step += 1
                self._over.wait(_SAMPLE_S)


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(Exception):  # no GPU, or no library that reads it
        monitors.append(GPUMonitor())
    return monitors


def origin(program: str) -> dict[str, str]:
    """Tags of program, user and commit, as MLflow's own client would set them."""
    tags = {"mlflow.source.name": program, "mlflow.source.type": "LOCAL"} if program else {}
    with suppress(KeyError, OSError):  # a container may have no name for its user
        tags["mlflow.user"] = getpass.getuser()
    return tags | commit()


def commit() -> dict[str, str]:
    """The tag of this package's git commit; none if the package is no checkout."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return {}
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    with suppress(OSError, subprocess.SubprocessError):
        head = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return {"mlflow.source.git.commit": head.stdout.strip()}
    return {}
