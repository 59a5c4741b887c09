"""Versions of a registered model in MLflow, and which one holds the alias `best`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.config import ConfigError
from raypipe.storage.address import Address
from raypipe.tracking.client import client, default_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

DIGEST = "raypipe.digest"
"""The tag of a version with the checkpoint's digest."""
TEST, VALUE = "raypipe.test", "raypipe.value"
"""The tags of a version with the test set that judged it, and what it reached there."""


def best_version(client: MlflowClient, name: str) -> Any:
    """The version with the alias `best`; None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, "best")
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def new_version(
    client: MlflowClient,
    name: str,
    logged: Any,
    run_id: str,
    tags: Mapping[str, str],
    by_server: bool,
) -> str:
    """Make a version of a logged model; its number.

    Args:
        by_server: a server resolves the address of the logged model; a database does not.
    """
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):  # it is there
        client.create_registered_model(name)
    made = client.create_model_version(
        name,
        f"models:/{logged.model_id}" if by_server else logged.artifact_location,
        run_id=run_id,
        tags=dict(tags) or None,
        model_id=logged.model_id if by_server else None,
    )
    return str(made.version)


def keeps(best: Any, tags: Mapping[str, str]) -> str:
    """Why the version with the alias keeps it against one with these tags; empty if it does not.

    A version that was never judged, such as raypipe 0.1's, gives way.
    """
    if best is None or VALUE not in best.tags or VALUE not in tags:
        return ""
    measure = tags[TEST].partition(" ")[0]
    if best.tags.get(TEST) != tags[TEST]:
        return f"was judged on another test set than the new one's {measure}"
    held, reached = float(best.tags[VALUE]), float(tags[VALUE])
    return f"reached {measure} {held:.3f}, the new one {reached:.3f}" if held > reached else ""


def local_checkpoint(uri: str, tracking: str | None) -> Path:
    """The folder with a registered model's checkpoint, copied to this machine.

    Args:
        uri: such as `models:/NAME@best` or `models:/NAME/3`.
        tracking: MLflow address; None is the default.

    Raises:
        ConfigError: there is no such model, or it is none that raypipe logged.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    address = Address(tracking or default_uri())
    client(address)  # gives up soon, which what follows would not
    try:
        folder = Path(download_artifacts(uri, tracking_uri=address.reveal()))
    except (MlflowException, OSError) as error:
        why = address.clean(str(error).strip().splitlines()[0])
        raise ConfigError(f"{uri}: not found at {address} ({why})") from None
    found = sorted(path.parent for path in folder.rglob("config.json"))
    if not found:
        raise ConfigError(f"{uri}: holds no config.json, so it is no model that raypipe logged")
    return found[0]
