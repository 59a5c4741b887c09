"""Records become calls of MLflow's client, one method per verb. Everything here may raise.

An experiment that was deleted in the UI is restored, and one that is gone is made anew.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from raypipe.storage.address import Address
from raypipe.storage.files import locked
from raypipe.tracking.client import client
from raypipe.tracking.names import (
    cells,
    experiment_folder,
    key,
    metric_name,
    model_name,
    run_name,
)
from raypipe.tracking.patience import DeniedError, first_line, is_denied, uploading
from raypipe.tracking.record import Record
from raypipe.tracking.registered import DIGEST, TEST, VALUE, best_version, register
from raypipe.tracking.uploads import log_model

if TYPE_CHECKING:
    from mlflow import MlflowClient


_log = logging.getLogger(__name__)
LOCAL_ID = "raypipe.local_id"
"""The tag with our own id of a run, which finds a run whose creation was not confirmed."""
_OF_DELETED = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""Codes of errors that a deleted experiment causes, among others."""
_PARAMS_PER_BATCH, _METRICS_PER_BATCH = 100, 1000
_TAG_CHARS, _DIGEST_CHARS = 8000, 36
_SHOWN = 6  # experiments that an error names
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""The tag of a new experiment that lets MLflow show the runs of trainings, and no traces."""


class UnknownRunError(Exception):
    """A record of a run that the server never took."""


@dataclass
class Server:
    """One experiment on a tracking server or in a database."""

    uri: Address
    experiment: str
    artifact_root: str = ""
    """Where the experiment's files go; empty where the server decides."""
    experiment_id: str = ""
    say: Callable[[str], None] = _log.warning
    """Given a sentence when the experiment was deleted and is there again."""
    _client: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.uri = Address(self.uri)

    @property
    def client(self) -> MlflowClient:
        if self._client is None:
            self._client = client(self.uri)
        return self._client

    @property
    def files(self) -> str:
        """The address of the experiment's files, of a folder with file:; empty where the server
        decides."""
        folder = experiment_folder(self.experiment)
        return f"{self.artifact_root}/{folder}" if self.artifact_root else ""

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
            The server's id of the record's run.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self._deliver(record, runs, again)
        except MlflowException as error:
            if error.error_code not in _OF_DELETED or not self._mended():
                raise
            return self._deliver(record, runs, True)

    def _deliver(self, record: Record, runs: Mapping[str, str], again: bool) -> str | None:
        verb: Callable[..., None] = getattr(self, f"_{record.verb}")
        run_id = runs.get(record.run)
        if run_id is None and again:  # our note of the server's id may be lost
            self.connect()
            run_id = self._known(record.run)
        if record.verb == "start":
            parent = record.content["parent"]
            return self._start(record.run, run_id, runs.get(parent), **record.content)
        if run_id is None:
            raise UnknownRunError(f"the server has no run {record.run}: its start was refused")
        verb(run_id, record.files, **record.content)
        return run_id

    # --- the verbs ---------------------------------------------------------------------------

    def _start(
        self,
        local_id: str,
        run_id: str | None,
        parent_id: str | None,
        *,
        parent: str | None,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        at: int,
    ) -> str:
        self.connect()
        if run_id is None:
            own = {LOCAL_ID: local_id, "mlflow.parentRunId": parent_id}
            marks = {key(k): str(v)[:_TAG_CHARS] for k, v in {**tags, **own}.items() if v}
            created = self.client.create_run(
                self.experiment_id, start_time=at, tags=marks, run_name=run_name(name)
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
        contest: Mapping[str, Any] | None = None,
        interpolation: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log a checkpoint as a pyfunc; under a registered name it gets the alias `best`."""
        self.connect()
        registered = model_name(registered) if registered else None
        best = best_version(self.client, registered) if registered else None
        if best is not None and digest and best.tags.get(DIGEST) == digest:
            self._points(run_id, points)
            return  # the same weights would only be copied once more
        place = log_model(self.client, self.experiment_id, run_id, name, files[0], interpolation)
        self._points(run_id, points, place.model_id)
        if registered:
            versioned = {**(tags or {}), **({DIGEST: digest} if digest else {})}
            if contest:
                versioned |= {TEST: str(contest["test"]), VALUE: repr(float(contest["value"]))}
            # a database resolves models:/ by the process's own tracking address
            by_server = self.uri.startswith("http")
            if said := register(self.client, registered, place, run_id, versioned, best, by_server):
                self.say(self.uri.clean(f"tracking: {said}"))

    def _finish(self, run_id: str, files: Sequence[Path], *, status: str, at: int) -> None:
        self.client.set_terminated(run_id, status, at)

    def connect(self) -> bool:
        """Find or create the experiment, and a new database before it, which takes seconds.

        Returns:
            Whether it was there and deleted, so that it had to be restored.

        Raises:
            DeniedError: the server lets the user neither see nor make it.
        """
        if self.experiment_id:
            return False
        database = self.uri.reveal().removeprefix("sqlite:///")
        once = locked(Path(database + ".lock")) if database != self.uri else nullcontext()
        with once:
            experiment = self._experiment()
        if is_deleted := experiment.lifecycle_stage == "deleted":
            self._restore(experiment.experiment_id)
        self.experiment_id = experiment.experiment_id
        return bool(is_deleted)

    def _experiment(self) -> Any:
        """The experiment, which is made if it is missing."""
        problem: Exception | None = None
        try:
            found = self.client.get_experiment_by_name(self.experiment)
            if found is not None:
                return found
            try:
                self.client.create_experiment(self.experiment, self.files or None, tags=dict(KIND))
            except Exception as error:  # another job was faster; a real error shows below
                problem = error
            if (found := self.client.get_experiment_by_name(self.experiment)) is not None:
                return found
        except Exception as error:
            problem = error
        if problem is not None and not is_denied(problem):
            raise problem
        raise DeniedError(
            f"the experiment {self.experiment!r} could not be had: the server denies it "
            f"({self.uri.clean(first_line(problem))}); ask whoever keeps the server to make it or "
            f"to let you write there, or name one with tracking.experiment{self._others()}"
        )

    def _others(self) -> str:
        """The end of a sentence: experiments that the user sees."""
        names: list[str] = []
        with suppress(Exception):
            names = [one.name for one in self.client.search_experiments(max_results=_SHOWN)]
        names = [name for name in names if name != "Default"]
        return f", such as {', '.join(names)}" if names else ""

    def _restore(self, experiment_id: str) -> None:
        with suppress(Exception):  # another job was faster; a real error shows below
            self.client.restore_experiment(experiment_id)
        if self._stage(experiment_id) == "deleted":
            raise RuntimeError(
                f"experiment {self.experiment!r} was deleted and could not be restored; restore "
                "it in the UI, or give the recipe another name"
            )
        self.say(f"tracking: the experiment {self.experiment!r} had been deleted, and is restored")

    def _stage(self, experiment_id: str) -> str:
        """active or deleted; gone if the server knows no such experiment."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.get_experiment(experiment_id).lifecycle_stage)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return "gone"
            raise

    def _mended(self) -> bool:
        """Whether the experiment was deleted in the UI since, and is there again."""
        if not self.experiment_id:
            return self.connect()
        stage = self._stage(self.experiment_id)
        if stage == "deleted":
            self._restore(self.experiment_id)
        elif stage == "gone":
            self.say(f"tracking: the experiment {self.experiment!r} is gone, and is made anew")
            self.experiment_id = ""
            self.connect()
        return stage != "active"


def now() -> int:
    """Milliseconds since the epoch, as MLflow counts."""
    return int(time.time() * 1000)


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))
