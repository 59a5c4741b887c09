"""Records become calls of MLflow's client, one method per verb. Everything here may raise.

With the client's defaults a call on a dead server blocks for four minutes. Here a call is tried
once, briefly, because the sender tries again later. Only uploads may take their time.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from raypipe.storage.files import home, locked
from raypipe.tracking.models import save_pyfunc
from raypipe.tracking.names import cells, key, metric_name, model_name
from raypipe.tracking.patience import CONNECT_S, REQUEST_S, TIMEOUT, uploading
from raypipe.tracking.spool import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient


LOCAL_ID = "raypipe.local_id"
"""The tag with our own id of a run, which finds a run whose creation was not confirmed."""
_ENVIRONMENT = {
    TIMEOUT: str(REQUEST_S),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_TIMED = {
    *("postgresql", "postgresql+psycopg2", "postgresql+psycopg"),
    *("mysql", "mysql+mysqldb", "mysql+pymysql"),
}
_PARAMS_PER_BATCH, _METRICS_PER_BATCH = 100, 1000
_TAG_CHARS, _DIGEST_CHARS = 8000, 36
DIGEST = "raypipe.digest"
"""The tag of a registered model with the checkpoint's digest."""


def default_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or one sqlite file in raypipe's home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def client(uri: str) -> MlflowClient:
    """An MLflow client whose calls give up soon.

    Raises:
        SQLAlchemyError: the database does not answer; MLflow itself would try for minutes.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "mlflow.store.db.utils"):  # a line per table of a new database
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    if _is_database(uri):
        from mlflow.store.db.utils import create_sqlalchemy_engine

        engine = create_sqlalchemy_engine(uri := _with_timeout(uri))
        with engine.connect():
            pass
        engine.dispose()
    return MlflowClient(tracking_uri=uri)


def _is_database(uri: str) -> bool:
    """Whether the address is that of a database server; sqlite has none."""
    return re.match(r"(postgresql|mysql|mssql)(\+\w+)?://", uri) is not None


def _with_timeout(uri: str) -> str:
    """The address with a time-out, without which drivers wait minutes for a host that is away."""
    from sqlalchemy import make_url

    address = make_url(uri)
    if address.drivername not in _TIMED:
        return uri
    timed = address.set(query={"connect_timeout": str(CONNECT_S), **address.query})
    return timed.render_as_string(hide_password=False)


def resolved(uri: str) -> tuple[str, str]:
    """The URI with an absolute path, and the artifact root; empty where a server decides.

    MLflow's own default root is below the working directory, which a submitted job loses.
    """
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///")).absolute()
        with suppress(OSError):  # reported by the first call, which fails too
            database.parent.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{database}", (database.parent / "mlartifacts").as_uri()
    if _is_database(uri):
        return uri, (home() / "mlartifacts").as_uri()
    return uri, ""


class UnknownRunError(Exception):
    """A record of a run that the server never took."""


@dataclass
class Server:
    """One experiment on a tracking server or in a database."""

    uri: str
    experiment: str
    artifact_root: str = ""
    """Where the experiment's files go; empty where the server decides."""
    experiment_id: str = ""
    _client: Any = field(default=None, repr=False)

    @property
    def client(self) -> MlflowClient:
        if self._client is None:
            self._client = client(self.uri)
        return self._client

    def alive(self) -> bool:
        """Whether the server answers."""
        try:
            self.client.search_experiments(max_results=1)
        except Exception:
            return False
        return True

    def deliver(self, record: Record, runs: Mapping[str, str], again: bool) -> str | None:
        """Make the calls of one record.

        Args:
            runs: the server's run ids by ours.
            again: whether the record may have arrived already.

        Returns:
            The server's id of a run that the record started, else None.
        """
        verb: Callable[..., str | None] = getattr(self, f"_{record.verb}")
        if record.verb == "start":
            parent = record.content["parent"]
            return verb(record.run, runs.get(parent), again, **record.content)
        if record.run not in runs:
            raise UnknownRunError(f"the server has no run {record.run}: its start was refused")
        return verb(runs[record.run], record.files, **record.content)

    # --- the verbs ---------------------------------------------------------------------------

    def _start(
        self,
        local_id: str,
        parent_id: str | None,
        again: bool,
        *,
        parent: str | None,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        at: int,
    ) -> str:
        self.connect()
        run_id = self._known(local_id) if again else None
        if run_id is None:
            own = {LOCAL_ID: local_id, "mlflow.parentRunId": parent_id}
            marks = {key(k): str(v)[:_TAG_CHARS] for k, v in {**tags, **own}.items() if v}
            created = self.client.create_run(
                self.experiment_id, start_time=at, tags=marks, run_name=name
            )
            run_id = created.info.run_id
        from mlflow.entities import Param

        for batch in _batches(cells(params), _PARAMS_PER_BATCH):
            self.client.log_batch(run_id, params=[Param(k, v) for k, v in batch])
        return run_id

    def _known(self, local_id: str) -> str | None:
        runs = self.client.search_runs(
            [self.experiment_id], f"tags.`{LOCAL_ID}` = '{local_id}'", max_results=1
        )
        return runs[0].info.run_id if runs else None

    def _metrics(
        self, run_id: str, files: Sequence[Path], *, points: Sequence[tuple[str, float, int, int]]
    ) -> None:
        self._points(run_id, points)

    def _points(
        self,
        run_id: str,
        points: Sequence[Sequence[Any]],
        model_id: str | None = None,
    ) -> None:
        from mlflow.entities import Metric

        named = [(metric_name(name), value, at, step) for name, value, at, step in points]
        for batch in _batches(named, _METRICS_PER_BATCH):
            self.client.log_batch(
                run_id, metrics=[Metric(*point, model_id=model_id) for point in batch]
            )

    def _tags(self, run_id: str, files: Sequence[Path], *, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            self.client.set_tag(run_id, key(name), str(value)[:_TAG_CHARS])

    def _artifacts(self, run_id: str, files: Sequence[Path]) -> None:
        with uploading(files):
            for path in files:
                if path.is_dir():
                    self.client.log_artifacts(run_id, str(path), path.name)
                else:
                    self.client.log_artifact(run_id, str(path))

    def _dataset(
        self, run_id: str, files: Sequence[Path], *, name: str, source: str, digest: str, use: str
    ) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(
            name=name,
            digest=digest[:_DIGEST_CHARS],
            source_type=urlsplit(source).scheme or "local",
            source=json.dumps({"uri": source}),
        )
        tags = [InputTag("mlflow.data.context", use)]
        self.client.log_inputs(run_id, [DatasetInput(data, tags)])

    def _model(
        self,
        run_id: str,
        files: Sequence[Path],
        *,
        name: str,
        registered: str | None,
        points: Sequence[Sequence[Any]],
        digest: str = "",
    ) -> None:
        """Log a checkpoint as a pyfunc; under a registered name it gets the alias `best`."""
        self.connect()
        registered = model_name(registered) if registered else None
        if registered and digest and self._best(registered) == digest:
            return  # the same weights would only be copied once more
        logged = self._logged(run_id, name, files[0])
        self._points(run_id, points, logged.model_id)
        if registered:
            self._register(registered, logged, run_id, digest)

    def _best(self, name: str) -> str:
        """The digest of the version with the alias `best`; empty if there is none."""
        from mlflow.exceptions import MlflowException

        try:
            best = self.client.get_model_version_by_alias(name, "best")
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return ""
            raise
        return str(best.tags.get(DIGEST, ""))

    def _logged(self, run_id: str, name: str, checkpoint: Path) -> Any:
        """The run's model of that name; a second try finds the model that the first one made."""
        from mlflow.entities import LoggedModelOutput

        known = self.client.search_logged_models(
            [self.experiment_id], f"source_run_id = '{run_id}' AND name = '{name}'"
        )
        if ready := [model for model in known if str(model.status) == "READY"]:
            return ready[0]
        logged = self.client.create_logged_model(self.experiment_id, name, source_run_id=run_id)
        self.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "model"
            save_pyfunc(target, checkpoint, run_id, logged)
            with uploading([target]):
                self.client.log_model_artifacts(logged.model_id, str(target))
        return self.client.finalize_logged_model(logged.model_id, "READY")

    def _register(self, name: str, logged: Any, run_id: str, digest: str) -> None:
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):  # it is there
            self.client.create_registered_model(name)
        # a database resolves models:/ by the process's own tracking address, a server by its own
        server = self.uri.startswith("http")
        source = f"models:/{logged.model_id}" if server else logged.artifact_location
        made = self.client.create_model_version(
            name,
            source,
            run_id=run_id,
            tags={DIGEST: digest} if digest else None,
            model_id=logged.model_id if server else None,
        )
        self.client.set_registered_model_alias(name, "best", made.version)

    def _finish(self, run_id: str, files: Sequence[Path], *, status: str, at: int) -> None:
        self.client.set_terminated(run_id, status, at)

    def connect(self) -> None:
        """Find or create the experiment, and a new database before it, which takes seconds."""
        if self.experiment_id:
            return
        database = self.uri.removeprefix("sqlite:///")
        once = locked(Path(database + ".lock")) if database != self.uri else nullcontext()
        with once:
            experiment = self.client.get_experiment_by_name(self.experiment)
            if experiment is None:
                folder = re.sub(r"[^\w.-]", "_", self.experiment)
                where = f"{self.artifact_root}/{folder}" if self.artifact_root else None
                with suppress(Exception):  # another job was faster; a real error shows below
                    self.client.create_experiment(self.experiment, where)
                experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is None:
            raise RuntimeError(
                f"experiment {self.experiment!r} could not be created; is a deleted one of that "
                "name there? restore it, or name another"
            )
        self.experiment_id = experiment.experiment_id


def now() -> int:
    """Milliseconds since the epoch, as MLflow counts."""
    return int(time.time() * 1000)


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))
