"""Whether a tracking server takes a job's records, asked beside the job's first work."""

from __future__ import annotations

import threading
from collections.abc import Callable

from raypipe.config import ConfigError
from raypipe.tracking.client import import_mlflow, resolved
from raypipe.tracking.patience import DeniedError
from raypipe.tracking.server import Server

_ASKED = ("http", "databricks")
"""Schemes of servers that may deny something; a database or folder denies nothing by name."""


class Opening:
    """Finds or makes a job's experiment in a thread, so that what is denied is known before work.

    A server that is away is no error: the job's records wait on the disk.
    """

    def __init__(self, uri: str | None, experiment: str, say: Callable[[str], None]) -> None:
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        if uri is not None and uri.startswith(_ASKED):
            address, root = resolved(uri)
            self._server = Server(address, experiment, root, say=say)
            self._thread = threading.Thread(target=self._work, daemon=True, name="opening")
            self._thread.start()

    def _work(self) -> None:
        try:
            import_mlflow()
            self._server.connect()
        except Exception as error:  # any but a denial is the sender's to tell
            self._error = error

    def check(self, patience: float = 10.0) -> None:
        """Wait for the answer, if the server is asked.

        Args:
            patience: seconds, after which the job goes on without an answer.

        Raises:
            ConfigError: the server lets the user neither see nor make the experiment.
        """
        if self._thread is not None:
            self._thread.join(patience)
        if isinstance(self._error, DeniedError):
            raise ConfigError(f"tracking: {self._error}")
