"""Versions of a registered model in MLflow, and which one holds the alias `best`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

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
