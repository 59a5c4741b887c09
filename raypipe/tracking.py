"""Tracked runs: one MLflow run per job, children per trial, grandchildren per stage.

The only module, beside the pyfunc file `tracking_model.py`, that imports mlflow; it does so inside
functions, so that importing it costs nothing. Only drivers call it. A tracking server that is down
costs records, never the job: every call is tried once, briefly, and what was lost is counted.

`python -m raypipe.tracking` opens the MLflow UI on the same store that jobs write to.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from raypipe.files import home, locked

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")
Kind = Literal["job", "trial", "stage"]

_log = logging.getLogger(__name__)
_ENVIRONMENT = {  # MLflow's defaults block one call on a dead server for four minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_PAUSE_S = 30.0  # calls are skipped this long after a server did not answer
_PARAMS_PER_BATCH, _METRICS_PER_BATCH = 100, 1000
_PARAM_CHARS, _TAG_CHARS, _KEY_CHARS, _DIGEST_CHARS = 6000, 8000, 250, 36
_WEIGHTLESS = {".json", ".txt", ".model", ".jinja"}  # tokenizer and config files


def default_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or one sqlite file in raypipe's home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def metric_name(measure: str) -> str:
    """A measure as MLflow accepts it: `nDCG@10` is `nDCG_10`, `RR(rel=2)@10` is `RR.rel-2_10`."""
    match = re.fullmatch(r"([^()@]+)(?:\(([^()]*)\))?(?:@(\d+(?:\.\d+)?))?", measure)
    if match is None:
        return _key(measure)
    name, params, cutoff = match.groups()
    for item in (params or "").split(","):
        key, equals, value = item.strip().partition("=")
        name += f".{key.strip()}-{value.strip(' ' + chr(34) + chr(39))}" if equals else ""
    return _key(f"{name}_{cutoff}" if cutoff else name)


def measure_name(metric: str) -> str:
    """The inverse of `metric_name` for every measure that ir-measures prints."""
    match = re.fullmatch(r"(.+?)(?:_(\d+(?:\.\d+)?))?", metric, re.DOTALL)
    assert match is not None, metric
    stem, cutoff = match.groups()
    name, *params = re.split(r"\.(?=[A-Za-z_]\w*-)", stem)
    pairs = []
    for key, _, value in (item.partition("-") for item in params):
        bare = re.fullmatch(r"-?\d+(\.\d+)?|True|False|None", value)
        pairs.append(f"{key}={value}" if bare else f"{key}='{value}'")
    return name + (f"({','.join(pairs)})" if pairs else "") + (f"@{cutoff}" if cutoff else "")


@dataclass
class Tracker:
    """Writes tracked runs; picklable. Nothing here raises because of the tracking server.

    The first loss is one plain warning, later ones are only counted. An empty run id stands for a
    run that could not be started: whatever is logged to it is lost too.
    """

    uri: str
    experiment: str
    artifact_root: str = ""
    """Where the experiment's files go; empty: the server decides."""
    experiment_id: str = ""
    """Empty until the server answered."""
    lost: int = 0
    """Calls whose content did not reach the store."""
    quiet_until: float = 0.0
    """Until this time, in seconds since the epoch, a silent server is left alone."""

    @classmethod
    def open(cls, uri: str | None, experiment: str) -> Tracker:
        """Connect, and create database and experiment where they are missing.

        A new sqlite database takes two seconds; doing it here keeps trials from doing it at once.
        """
        uri, root = _store(uri or default_uri())
        tracker = cls(uri, experiment, root)
        tracker._attempt(f"experiment {experiment!r}", tracker._connect)
        return tracker

    def start(
        self,
        name: str,
        kind: Kind,
        parent: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> str:
        """Begin a run below `parent` and return its id, empty when the server did not answer."""
        own = {"raypipe.kind": kind, "mlflow.parentRunId": parent, **_commit()}
        marks = {_key(k): str(v)[:_TAG_CHARS] for k, v in ({**(tags or {}), **own}).items() if v}
        cells = _params(params or {})

        def create(client: MlflowClient) -> str:
            self._connect(client)
            return client.create_run(self.experiment_id, tags=marks, run_name=name).info.run_id

        run_id = self._attempt(f"run {name!r}", create, "", always=True)
        for batch in _batches(cells, _PARAMS_PER_BATCH):
            self._record(run_id, "parameters", lambda c, b=batch: _log_params(c, run_id, b))
        return run_id

    def log(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log one value per metric; names may be measures, see `metric_name`."""
        self.log_series(run_id, {name: [(step, value)] for name, value in metrics.items()})

    def log_series(self, run_id: str, series: Mapping[str, Iterable[tuple[int, float]]]) -> None:
        """Log whole curves: name to (step, value) pairs."""
        now = int(time.time() * 1000)
        points = [
            (metric_name(name), float(value), now, int(step))
            for name, curve in series.items()
            for step, value in curve
        ]
        for batch in _batches(points, _METRICS_PER_BATCH):
            self._record(run_id, "metrics", lambda c, b=batch: _log_metrics(c, run_id, b))

    def log_artifact(self, run_id: str, path: str | Path) -> None:
        """Upload a file, or a folder with everything below it."""
        path = Path(path)
        what = f"artifact {path.name}"
        if path.is_dir():
            self._record(run_id, what, lambda c: c.log_artifacts(run_id, str(path), path.name))
        else:
            self._record(run_id, what, lambda c: c.log_artifact(run_id, str(path)))

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """Upload a string as a file."""
        what = f"artifact {artifact_file}"
        self._record(run_id, what, lambda c: c.log_text(run_id, text, artifact_file))

    def log_dataset(self, run_id: str, name: str, source: str, digest: str, context: str) -> None:
        """Name an input of the run; `context` is training, validation or test."""

        def call(client: MlflowClient) -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag

            data = Dataset(
                name=name,
                digest=digest[:_DIGEST_CHARS],
                source_type=urlsplit(source).scheme or "local",
                source=json.dumps({"uri": source}),
            )
            tags = [InputTag("mlflow.data.context", context)]
            client.log_inputs(run_id, [DatasetInput(data, tags)])

        self._record(run_id, f"data set {name!r}", call)

    def log_model(
        self,
        run_id: str,
        checkpoint_dir: str | Path,
        name: str,
        metrics: Mapping[str, float] | None = None,
    ) -> str:
        """Log a cross-encoder checkpoint as a pyfunc that re-ranks; returns its models:/ URI."""

        def call(client: MlflowClient) -> str:
            from mlflow.entities import LoggedModelOutput

            self._connect(client)
            logged = client.create_logged_model(self.experiment_id, name, source_run_id=run_id)
            client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) / "model"
                _save_pyfunc(target, Path(checkpoint_dir), run_id, logged)
                client.log_model_artifacts(logged.model_id, str(target))
            client.finalize_logged_model(logged.model_id, "READY")
            now = int(time.time() * 1000)
            points = [(metric_name(k), float(v), now, 0) for k, v in (metrics or {}).items()]
            _log_metrics(client, run_id, points, model_id=logged.model_id)
            return f"models:/{logged.model_id}"

        return self._record(run_id, f"model {name!r}", call) or ""

    def finish(self, run_id: str, status: Literal["FINISHED", "FAILED"] = "FINISHED") -> None:
        """End the run."""
        what = f"status {status}"
        self._record(run_id, what, lambda c: c.set_terminated(run_id, status), always=True)

    def _connect(self, client: MlflowClient) -> None:
        """Find or create the experiment; the database is created on the way."""
        if self.experiment_id:
            return
        database = self.uri.removeprefix("sqlite:///")
        once = locked(Path(database + ".lock")) if database != self.uri else nullcontext()
        with once:
            found = client.get_experiment_by_name(self.experiment)
            if found is None:
                folder = re.sub(r"[^\w.-]", "_", self.experiment)
                where = f"{self.artifact_root}/{folder}" if self.artifact_root else None
                with suppress(Exception):  # another job was faster; a real error shows below
                    client.create_experiment(self.experiment, where)
                found = client.get_experiment_by_name(self.experiment)
        if found is None:
            raise RuntimeError(f"experiment {self.experiment!r} could not be created")
        self.experiment_id = found.experiment_id

    def _record(
        self, run_id: str, what: str, call: Callable[[MlflowClient], T], always: bool = False
    ) -> T | None:
        if not run_id:
            self.lost += 1
            return None
        return self._attempt(f"{what} of run {run_id}", call, None, always)

    def _attempt(
        self,
        what: str,
        call: Callable[[MlflowClient], T],
        default: T | None = None,
        always: bool = False,
    ) -> Any:
        """The result of `call`, or `default` after counting the loss."""
        if time.time() < self.quiet_until and not always:
            self.lost += 1
            return default
        try:
            return call(_client(self.uri))
        except Exception as error:
            self._lose(what, error)
            return default

    def _lose(self, what: str, error: Exception) -> None:
        from mlflow.exceptions import RestException

        if self.uri.startswith("http") and not isinstance(error, RestException):
            self.quiet_until = time.time() + _PAUSE_S
        self.lost += 1
        if self.lost == 1:
            reason = _without_password((str(error).splitlines() or [""])[0])[:300]
            _log.warning(
                "Tracking at %s failed; not recorded: %s (%s: %s). The job goes on without it; "
                "later losses are counted, not printed. Check the server or MLFLOW_TRACKING_URI.",
                _without_password(self.uri), what, type(error).__name__, reason,
            )  # fmt: skip


def _client(uri: str) -> MlflowClient:
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _store(uri: str) -> tuple[str, str]:
    """The URI with an absolute path, and the artifact root for stores without a server.

    MLflow's own default root is below the working directory, which a submitted job loses.
    """
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///")).absolute()
        with suppress(OSError):  # reported by the first call, which fails too
            database.parent.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{database}", (database.parent / "mlartifacts").as_uri()
    if urlsplit(uri).scheme.partition("+")[0] in ("postgresql", "mysql", "mssql"):
        return uri, (home() / "mlartifacts").as_uri()
    return uri, ""


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", uri)


def _key(name: str) -> str:
    """`name` with the characters that MLflow refuses replaced, on any platform."""
    key = re.sub(r"[^\w.\-/ ]", "_", str(name))[:_KEY_CHARS]
    ambiguous = posixpath.normpath(key) != key or key == "." or key.startswith(("/", ".."))
    return key.replace("/", "_").strip(".") or "_" if ambiguous else key


def _params(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Unique legal keys and cut values; two keys that become equal are numbered apart."""
    cells: dict[str, str] = {}
    for name, value in params.items():
        key, n = _key(name), 2
        while key in cells:
            key, n = f"{_key(name)[: _KEY_CHARS - 8]}_{n}", n + 1
        cells[key] = str(value)[:_PARAM_CHARS]
    return list(cells.items())


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _commit() -> dict[str, str]:
    """The commit of the checkout this package runs from; nothing when it was installed."""
    checkout = Path(__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return {}
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return {"mlflow.source.git.commit": found.stdout.strip()}
    return {}


def _log_params(client: MlflowClient, run_id: str, cells: Sequence[tuple[str, str]]) -> None:
    from mlflow.entities import Param

    client.log_batch(run_id, params=[Param(key, value) for key, value in cells])


def _log_metrics(
    client: MlflowClient,
    run_id: str,
    points: Sequence[tuple[str, float, int, int]],
    model_id: str | None = None,
) -> None:
    from mlflow.entities import Metric

    client.log_batch(run_id, metrics=[Metric(*point, model_id=model_id) for point in points])


def _save_pyfunc(target: Path, checkpoint: Path, run_id: str, logged: Any) -> None:
    """Write the model folder: code, requirements and the Hugging Face files, no trainer state."""
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    kept = target.parent / "checkpoint"
    kept.mkdir()
    for file in checkpoint.iterdir():
        if file.suffix == ".safetensors" or file.suffix in _WEIGHTLESS:
            _link(file, kept / file.name)
    inputs = [ColSpec("string", "query"), ColSpec("string", "text")]
    inputs.append(ColSpec("string", "doc_id", required=False))
    packages = ["mlflow", "pandas", "safetensors", "torch", "transformers"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*input example", UserWarning)  # the schema is enough
        mlflow.pyfunc.save_model(
            path=str(target),
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
                run_id=run_id,
            ),
            python_model=str(Path(__file__).with_name("tracking_model.py")),
            artifacts={"checkpoint": str(kept)},
            signature=ModelSignature(Schema(inputs), Schema([ColSpec("float", "score")])),
            pip_requirements=[f"{p}=={version(p).partition('+')[0]}" for p in packages],
        )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another filesystem
        target.write_bytes(source.read_bytes())


def main() -> None:
    """Replace this process by the MLflow UI on the default store."""
    uri, root = _store(default_uri())
    if uri.startswith("http"):
        print(f"MLFLOW_TRACKING_URI names a server, open it in a browser: {_without_password(uri)}")
        return
    address = ["--host", "127.0.0.1", "--port", "5000"]
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, *address]
    command += ["--default-artifact-root", root] if root else []
    print(f"MLflow UI on {_without_password(uri)}: http://127.0.0.1:5000", flush=True)
    os.execv(sys.executable, command + sys.argv[1:])


if __name__ == "__main__":
    main()
