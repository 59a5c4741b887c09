"""Tracked runs as they stand in a store, for reports of another day."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.config import ConfigError, nearest
from raypipe.storage.files import without_secrets
from raypipe.tracking.names import run_page
from raypipe.tracking.server import client, default_uri, resolved

if TYPE_CHECKING:
    from mlflow import MlflowClient


_PAGE = 1000
_RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class TrackedRun:
    """One run and where its files are."""

    store: TrackingStore
    run_id: str
    experiment_id: str
    name: str
    kind: str
    status: str
    parent: str
    started: int
    """Milliseconds since the epoch."""
    tags: Mapping[str, str]

    @property
    def address(self) -> str:
        """Of its page in the UI; for a database without a server, what names it there."""
        return run_page(self.store.shown, self.experiment_id, self.run_id)

    def file(self, name: str, folder: Path) -> Path | None:
        """A copy of one of its files in `folder`; None if it has none of this name."""
        names = {one.path for one in self.store.client.list_artifacts(self.run_id)}
        if name not in names:
            return None
        return Path(self.store.client.download_artifacts(self.run_id, name, str(folder)))

    def json(self, name: str, folder: Path) -> Any | None:
        """A JSON file's content; None if there is none."""
        path = self.file(name, folder)
        return None if path is None else json.loads(path.read_text("utf-8"))

    def history(self, prefixes: tuple[str, ...]) -> dict[str, list[tuple[int, float]]]:
        """Curves of the metrics whose name begins with one of the prefixes, by step."""
        found = {}
        for name in self.store.client.get_run(self.run_id).data.metrics:
            if name.startswith(prefixes):
                points = self.store.client.get_metric_history(self.run_id, name)
                found[name] = sorted({(point.step, point.value) for point in points})
        return found


class TrackingStore:
    """A tracking server or database, for reading."""

    def __init__(self, uri: str | None = None) -> None:
        self.uri = resolved(uri or default_uri())[0]
        self.shown = without_secrets(self.uri)
        self.client: MlflowClient = client(self.uri)

    def job(self, named: str | None = None) -> TrackedRun:
        """A job by its run id, or the latest of the experiment of that name, or the latest of all.

        Raises:
            ConfigError: there is none.
        """
        if named is not None and _RUN_ID.fullmatch(named):
            try:
                return self._read(self.client.get_run(named))
            except Exception as error:
                reason = without_secrets(str(error))
                raise ConfigError(f"no tracked run {named} in {self.shown}: {reason}") from None
        experiments = {one.name: one.experiment_id for one in self.client.search_experiments()}
        if named is not None and named not in experiments:
            near = nearest(named, experiments)
            raise ConfigError(f"no tracked experiment {named!r} in {self.shown}{near}")
        ids = list(experiments.values()) if named is None else [experiments[named]]
        runs = self.client.search_runs(
            ids, "tags.`raypipe.kind` = 'job'", order_by=["attributes.start_time DESC"]
        )
        if not runs:
            raise ConfigError(f"no tracked job in {self.shown}; run jobs/sweep.py first")
        return self._read(runs[0])

    def children(self, parent: TrackedRun) -> list[TrackedRun]:
        """Runs directly below, in the order they were started."""
        found = self._search([parent.experiment_id], f"tags.mlflow.parentRunId = '{parent.run_id}'")
        return sorted(found, key=lambda run: (run.started, run.name))

    def _search(self, ids: list[str], query: str) -> Iterator[TrackedRun]:
        token = None
        while True:
            page = self.client.search_runs(ids, query, max_results=_PAGE, page_token=token)
            yield from map(self._read, page)
            token = page.token
            if not token:
                return

    def _read(self, run: Any) -> TrackedRun:
        tags = dict(run.data.tags)
        return TrackedRun(
            store=self,
            run_id=run.info.run_id,
            experiment_id=run.info.experiment_id,
            name=run.info.run_name,
            kind=tags.get("raypipe.kind", ""),
            status=run.info.status,
            parent=tags.get("mlflow.parentRunId", ""),
            started=int(run.info.start_time or 0),
            tags=tags,
        )
