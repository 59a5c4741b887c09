"""Tracked runs read back from a server or database, for reports of another day."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.config import ConfigError, nearest
from raypipe.tracking.client import client, default_uri, resolved
from raypipe.tracking.names import NAME_TAG, run_page

if TYPE_CHECKING:
    from mlflow import MlflowClient


_PAGE = 1000
_RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class TrackedRun:
    """One run of a tracking store, and access to its files and metrics."""

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
        """The address of the run's page, see `names.run_page`."""
        return run_page(self.store.uri.place, self.experiment_id, self.run_id)

    def file(self, names: str | Sequence[str], folder: Path) -> Path | None:
        """A copy in `folder` of the first of these files that the run has; None if it has none."""
        there = {entry.path for entry in self.store.client.list_artifacts(self.run_id)}
        wanted = [names] if isinstance(names, str) else names
        if (name := next((name for name in wanted if name in there), None)) is None:
            return None
        return Path(self.store.client.download_artifacts(self.run_id, name, str(folder)))

    def json(self, name: str, folder: Path) -> Any | None:
        """The content of one of the run's JSON files; None if the run has no such file."""
        path = self.file(name, folder)
        return None if path is None else json.loads(path.read_text("utf-8"))

    def history(self, prefixes: tuple[str, ...]) -> dict[str, list[tuple[int, float]]]:
        """Curves by metric name, each in order of steps.

        Args:
            prefixes: only metrics whose name begins with one of them.
        """
        curves = {}
        for name in self.store.client.get_run(self.run_id).data.metrics:
            if name.startswith(prefixes):
                points = self.store.client.get_metric_history(self.run_id, name)
                curves[name] = sorted({(point.step, point.value) for point in points})
        return curves


def _of_recipe(name: str) -> str:
    """The end of a query for the jobs of a recipe, which may share an experiment with others."""
    quote = '"' if "'" in name else "'"  # MLflow's queries have no escape
    return f" AND tags.`{NAME_TAG}` = {quote}{name.replace(quote, '')}{quote}"


class TrackingStore:
    """A tracking server or database, for reading."""

    def __init__(self, uri: str | None = None) -> None:
        self.uri = resolved(uri or default_uri())[0]
        self.shown = str(self.uri)
        self.client: MlflowClient = client(self.uri)

    def job(self, named: str | None = None) -> TrackedRun:
        """A tracked job.

        Args:
            named: a run id; or an experiment or the name of a recipe, whose latest job is meant;
                None is the latest of all.

        Raises:
            ConfigError: there is no such job.
        """
        if named is not None and _RUN_ID.fullmatch(named):
            try:
                return self._read(self.client.get_run(named))
            except Exception as error:
                reason = self.uri.clean(str(error))
                raise ConfigError(
                    f"no tracked run {named} in {self.shown}: {reason}; look it up in the UI"
                ) from None
        experiments = {each.name: each.experiment_id for each in self.client.search_experiments()}
        ids = [experiments[named]] if named in experiments else list(experiments.values())
        of_recipe = "" if named is None or named in experiments else _of_recipe(named)
        runs = self.client.search_runs(
            ids,
            f"tags.`raypipe.kind` = 'job'{of_recipe}",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        if not runs and of_recipe:
            near = nearest(str(named), experiments)
            raise ConfigError(f"no tracked experiment {named!r} in {self.shown}{near}")
        if not runs:
            raise ConfigError(f"no tracked job in {self.shown}; run jobs/sweep.py first")
        return self._read(runs[0])

    def children(self, parent: TrackedRun) -> list[TrackedRun]:
        """The runs directly below a run, in the order in which they were started."""
        query = f"tags.mlflow.parentRunId = '{parent.run_id}'"
        runs = self._search([parent.experiment_id], query)
        return sorted(runs, key=lambda run: (run.started, run.name))

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
            name=tags.get(NAME_TAG, run.info.run_name),  # jobs of before have no such tag
            kind=tags.get("raypipe.kind", ""),
            status=run.info.status,
            parent=tags.get("mlflow.parentRunId", ""),
            started=int(run.info.start_time or 0),
            tags=tags,
        )
