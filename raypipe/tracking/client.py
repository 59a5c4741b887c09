"""Which tracking server or database jobs write to, and MLflow's client for it.

With the client's defaults a call on a dead server blocks for four minutes. Here a call is tried
once, briefly, because the sender tries again later. Only uploads may take their time.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from raypipe.config import ConfigError, nearest
from raypipe.storage.address import Address
from raypipe.storage.files import close_file, close_new_files, home, in_home, make_folder
from raypipe.tracking.database import make_database
from raypipe.tracking.patience import CONNECT_S, REQUEST_S, TIMEOUT

if TYPE_CHECKING:
    from mlflow import MlflowClient


_ENVIRONMENT = {
    TIMEOUT: str(REQUEST_S),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it prints the address as it was typed
}
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https", "file", "databricks", "databricks-uc", "uc")
"""The schemes of MLflow's stores beside databases; a path without a scheme is one too."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_TIMED = {
    *("postgresql", "postgresql+psycopg2", "postgresql+psycopg"),
    *("mysql", "mysql+mysqldb", "mysql+pymysql"),
}


_importing = threading.Lock()


def import_mlflow() -> None:
    """Import what threads use of MLflow: two that import it at once see halves of it."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with _importing:
        import mlflow.entities
        import mlflow.exceptions
        import mlflow.system_metrics.system_metrics_monitor  # noqa: F401


def check_scheme(uri: str) -> None:
    """Refuse an address that MLflow has no store for; nothing but its scheme is shown.

    Raises:
        ConfigError: the scheme is unknown, or a database's address has no `://`.
    """
    scheme = match[1].lower() if (match := _SCHEME.match(uri)) else ""
    base = scheme.partition("+")[0]  # postgresql+psycopg2
    if base in DATABASES and not uri[len(scheme) :].startswith("://"):
        raise ConfigError(f"expected {base}://..., found {scheme} without ://; correct it")
    if scheme and base not in {*DATABASES, *SERVERS} and scheme not in _plugins():
        near = nearest(base, [*DATABASES, *SERVERS])
        raise ConfigError(f"expected a scheme that MLflow has a store for, found {scheme!r}{near}")


def _plugins() -> set[str]:
    """Schemes that installed packages bring to MLflow."""
    return {point.name for point in entry_points(group="mlflow.tracking_store")}


def default_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or one sqlite file in raypipe's home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def client(uri: str) -> MlflowClient:
    """An MLflow client whose calls give up soon.

    Raises:
        SQLAlchemyError: the database does not answer; MLflow itself would try for minutes.
    """
    import_mlflow()
    for name in ("alembic", "mlflow.store.db.utils"):  # a line per table of a new database
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    uri = Address(uri).reveal()
    if (file := _sqlite_file(uri)) is not None and file.parent.is_dir():
        make_database(file)
    if _is_database(uri):
        from mlflow.store.db.utils import create_sqlalchemy_engine

        engine = create_sqlalchemy_engine(uri := _with_timeout(uri))
        with engine.connect():
            pass
        engine.dispose()
    return MlflowClient(tracking_uri=uri)


def look(uri: str) -> str:
    """A sentence on a tracking address that answers, or whose file will be made by the first job.

    Raises:
        ConfigError: it does not answer; nothing of an address but its mask is shown.
    """
    check_scheme(uri)
    address = Address(uri)
    file = Path(address.reveal().removeprefix("sqlite:///"))
    if address.startswith("sqlite:///") and not file.exists():
        return f"{address} will be made by the first job"
    try:
        found = client(uri).search_experiments(max_results=1000)
    except Exception as error:  # of MLflow, SQLAlchemy, drivers
        why = address.clean(str(error).strip().splitlines()[0] if str(error).strip() else "")
        raise ConfigError(f"{address} does not answer ({type(error).__name__}: {why})") from None
    return f"{address} answers, with {len(found)} experiments"


def _is_database(uri: str) -> bool:
    """Whether the address is that of a database server; sqlite has none."""
    return re.match(r"(postgresql|mysql|mssql)(\+\w+)?://", uri) is not None


def _sqlite_file(uri: str) -> Path | None:
    """The file of a sqlite address; None for another address, and for one in memory."""
    if not uri.startswith("sqlite:///"):
        return None
    from sqlalchemy import make_url

    name = make_url(uri).database  # without parameters such as ?timeout=5
    return Path(name).absolute() if name and not name.startswith((":", "file:")) else None


def _with_timeout(uri: str) -> str:
    """The address with a time-out, without which drivers wait minutes for a host that is away."""
    from sqlalchemy import make_url

    address = make_url(uri)
    if address.drivername not in _TIMED:
        return uri
    timed = address.set(query={"connect_timeout": str(CONNECT_S), **address.query})
    return timed.render_as_string(hide_password=False)


def resolved(uri: str) -> tuple[Address, str]:
    """The address with an absolute path, and the artifact root; empty where a server decides.

    MLflow's own default root is below the working directory, which a submitted job loses. MLflow
    creates files as the process lets it: in raypipe's home, for their owner alone from now on.
    """
    address = Address(uri)
    if address.startswith("sqlite:///"):
        database = Path(address.reveal().removeprefix("sqlite:///")).absolute()
        with suppress(OSError):  # reported by the first call, which fails too
            make_folder(database.parent)
            if in_home(database):
                close_new_files()
                close_file(database)
        return Address(f"sqlite:///{database}"), (database.parent / "mlartifacts").as_uri()
    if _is_database(address):
        close_new_files()
        return address, (home() / "mlartifacts").as_uri()
    return address, ""
