"""Checkpoints that become models of tracked runs: logged models, or files of the run.

A server of MLflow 2 has no logged models: there a model is a folder among the run's artifacts, and
a version of a registered model names that folder.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.tracking.models import save_pyfunc
from raypipe.tracking.patience import is_unknown_call, uploading

if TYPE_CHECKING:
    from mlflow import MlflowClient

_HISTORY = "mlflow.log-model.history"
"""The tag of a run by which MLflow 2 shows that it has models."""


@dataclass(frozen=True)
class LoggedPlace:
    """Where a model went."""

    files: str
    """The address of its files."""
    model_id: str | None = None
    """Of a logged model; None of files of a run."""


def log_model(
    client: MlflowClient,
    experiment_id: str,
    run_id: str,
    name: str,
    checkpoint: Path,
    interpolation: Mapping[str, Any] | None,
) -> LoggedPlace:
    """Log a checkpoint as a pyfunc of the run, as the server's version of MLflow has it."""
    log = _logged_model if _has_logged_models(client, experiment_id) else _model_files
    return log(client, experiment_id, run_id, name, checkpoint, interpolation)


def _has_logged_models(client: MlflowClient, experiment_id: str) -> bool:
    try:
        client.search_logged_models([experiment_id], max_results=1)
    except Exception as error:
        if is_unknown_call(error):
            return False
        raise
    return True


def _logged_model(
    client: MlflowClient,
    experiment_id: str,
    run_id: str,
    name: str,
    checkpoint: Path,
    interpolation: Mapping[str, Any] | None,
) -> LoggedPlace:
    """The run's model of that name; a second try finds the model that the first one made."""
    from mlflow.entities import LoggedModelOutput

    known = client.search_logged_models(
        [experiment_id], f"source_run_id = '{run_id}' AND name = '{name}'"
    )
    if ready := [model for model in known if str(model.status) == "READY"]:
        return LoggedPlace(ready[0].artifact_location, ready[0].model_id)
    logged = client.create_logged_model(experiment_id, name, source_run_id=run_id)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model"
        save_pyfunc(target, checkpoint, run_id, logged, interpolation)
        with uploading([target]):
            client.log_model_artifacts(logged.model_id, str(target))
    logged = client.finalize_logged_model(logged.model_id, "READY")
    return LoggedPlace(logged.artifact_location, logged.model_id)


def _model_files(
    client: MlflowClient,
    experiment_id: str,
    run_id: str,
    name: str,
    checkpoint: Path,
    interpolation: Mapping[str, Any] | None,
) -> LoggedPlace:
    """The model as a folder of the run's artifacts, as MLflow 2 logs models."""
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / name
        save_pyfunc(target, checkpoint, run_id, None, interpolation)
        with uploading([target]):
            client.log_artifacts(run_id, str(target), name)
        said = Model.load(str(target)).get_tags_dict()
    client.set_tag(run_id, _HISTORY, json.dumps([said]))
    return LoggedPlace(f"{client.get_run(run_id).info.artifact_uri}/{name}")
