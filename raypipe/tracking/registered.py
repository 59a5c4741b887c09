"""Versions of a registered model in MLflow, and which one holds the alias `best`."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.config import ConfigError
from raypipe.tracking.client import client, default_uri, resolved
from raypipe.tracking.patience import first_line, is_denied
from raypipe.tracking.uploads import LoggedPlace

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOGGED = re.compile(r"models:/(m-[0-9a-f]+)")
_ALIASED = re.compile(r"models:/(.+)@([^@/]+)")
DIGEST = "raypipe.digest"
"""The tag of a version with the checkpoint's digest."""
TEST, VALUE = "raypipe.test", "raypipe.value"
"""The tags of a version with the test set that judged it, and what it reached there."""


def best_version(client: MlflowClient, name: str) -> Any:
    """The version with the alias `best`; None if there is none, or none that the user may see."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, "best")
    except MlflowException as error:
        missing = error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
        if missing or is_denied(error):
            return None
        raise


def register(
    client: MlflowClient,
    name: str,
    place: LoggedPlace,
    run_id: str,
    tags: Mapping[str, str],
    best: Any,
    by_server: bool,
) -> str:
    """Make a version of a logged model, which gets the alias unless the best version keeps it.

    Args:
        best: the version that has the alias, None if none has.
        by_server: a server resolves the address of the logged model; a database does not.

    Returns:
        A sentence if the version has no alias, or if there is none; else nothing.
    """
    try:
        version = _new_version(client, name, place, run_id, tags, by_server)
    except Exception as error:
        if not is_denied(error):
            raise
        return (
            f"the server denies a version of the registered model {name} ({first_line(error)}); "
            "the model is logged with its run; ask whoever keeps the server to make it or to let "
            "you write there, or name another with tracking.registered_model"
        )
    if reason := keeps(best, tags):
        return (
            f"the alias `best` of {name} stays with version {best.version}, which {reason}; "
            f"version {version} is beside it: move the alias in MLflow's UI if it should serve"
        )
    client.set_registered_model_alias(name, "best", version)
    return ""


def _new_version(
    client: MlflowClient,
    name: str,
    place: LoggedPlace,
    run_id: str,
    tags: Mapping[str, str],
    by_server: bool,
) -> str:
    """Make a version; its number. A registered model that exists is used."""
    _find_or_make(client, name)
    model_id = place.model_id if by_server else None
    made = client.create_model_version(
        name,
        place.files if model_id is None else f"models:/{model_id}",
        run_id=run_id,
        tags={key: value for key, value in tags.items() if not key.startswith("mlflow.")},
        description=_description(name, tags),
        model_id=model_id,
    )
    return str(made.version)


def _description(name: str, tags: Mapping[str, str]) -> str:
    """What MLflow shows above a version's tags: what it reached, and how it opens."""
    reached = ""
    if TEST in tags and VALUE in tags:
        measure = tags[TEST].partition(" ")[0]
        reached = f"{measure} {float(tags[VALUE]):.3f} on the job's test queries; "
    return (
        f"{reached}the source run has the report. `raypipe rerank --model 'models:/{name}@best'` "
        "and `mlflow.pyfunc.load_model` open the version that has the alias."
    )


def _find_or_make(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
        return
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    try:
        client.create_registered_model(name)
    except MlflowException as error:  # another job was faster
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


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
        uri: such as `models:/NAME@best`, `models:/NAME/3` or `models:/m-ID`.
        tracking: MLflow address; None is the default.

    Raises:
        ConfigError: there is no such model, or it is none that raypipe logged.
    """
    from mlflow.artifacts import download_artifacts

    address = resolved(tracking or default_uri())[0]
    copy = None
    if address.startswith("http"):  # else the model's own folder is read
        copy = tempfile.mkdtemp(prefix="raypipe-model-")
        atexit.register(shutil.rmtree, copy, ignore_errors=True)
    try:
        place = _files_of(client(address), uri)
        folder = Path(download_artifacts(place, dst_path=copy, tracking_uri=address.reveal()))
    except Exception as error:  # of MLflow, of drivers, of files
        why = address.clean(first_line(error))
        raise ConfigError(
            f"{uri}: not found at {address} ({why}); name a model and version, or an alias, that "
            "MLflow's page of registered models has"
        ) from None
    found = sorted(path.parent for path in folder.rglob("config.json"))
    if not found:
        raise ConfigError(f"{uri}: holds no config.json, so it is no model that raypipe logged")
    return found[0]


def _files_of(store: MlflowClient, uri: str) -> str:
    """Where a model's files are. MLflow itself looks `models:/` up at the address of the process.

    Raises:
        MlflowException: there is no such model.
    """
    if (logged := _LOGGED.fullmatch(uri)) is None:
        name, version = _name_and_version(store, uri)
        uri = store.get_model_version_download_uri(name, version)
        logged = _LOGGED.fullmatch(uri)
    return uri if logged is None else str(store.get_logged_model(logged[1]).artifact_location)


def _name_and_version(store: MlflowClient, uri: str) -> tuple[str, str]:
    if aliased := _ALIASED.fullmatch(uri):
        found = store.get_model_version_by_alias(aliased[1], aliased[2])
        return aliased[1], str(found.version)
    name, slash, version = uri.removeprefix("models:/").rpartition("/")
    if not slash or not version.isdigit():
        raise ValueError("expected models:/NAME@ALIAS or models:/NAME/VERSION")
    return name, version


def version_of(uri: str, tracking: str | None) -> str:
    """The number of the version that a registered model's address means; empty if none tells it.

    Args:
        uri: as that of `local_checkpoint`.
        tracking: MLflow address; None is the default.
    """
    with suppress(Exception):  # the model itself was there: its number is no reason to stop
        return _name_and_version(client(resolved(tracking or default_uri())[0]), uri)[1]
    return ""
