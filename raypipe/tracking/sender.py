"""The thread that carries records from the spool to the server, as long as it takes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from raypipe.tracking.names import without_password
from raypipe.tracking.server import Server, UnknownRunError, passing
from raypipe.tracking.spool import Record, Spool

_log = logging.getLogger(__name__)
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0)
_TRIES = 3  # of a record that a live server refuses


class Sender:
    """Sends a spool's records in order; a record that the server refuses for good is counted.

    Args:
        warn: given one plain sentence when the server goes away, when it is back, and for the first
            refused record.
    """

    def __init__(self, spool: Spool, server: Server, warn: Callable[[str], None]) -> None:
        self.spool, self.server, self.warn = spool, server, warn
        self.refused = 0
        self.away = False
        """The last call found no server."""
        self._news = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="tracking")
        self._unsure = True  # the process before this one may have died after a call
        self._thread.start()

    def wake(self) -> None:
        """There is something new."""
        self._news.set()

    def drain(self, patience: float) -> int:
        """Wait until everything is sent, or the server was away for `patience` seconds.

        Returns:
            Records that still wait.
        """
        gone = time.monotonic()
        while self.spool.waiting and self._thread.is_alive():
            self._over.wait(0.05)
            if not self.away:
                gone = time.monotonic()
            elif time.monotonic() - gone > patience:
                break
        return self.spool.waiting

    def stop(self) -> None:
        """End after the record that is being sent."""
        self._over.set()
        self._news.set()
        self._thread.join(timeout=30)

    def _work(self) -> None:
        while not self._over.is_set():
            self._news.clear()
            for record in self.spool.unsent():
                if not self._send(record):
                    return
            self._news.wait()

    def _send(self, record: Record) -> bool:
        """False if the thread was told to end."""
        tries = 0
        while not self._over.is_set():
            try:
                run_id = self.server.deliver(record, self.spool.runs, self._unsure)
                self._back()
                self._unsure = False
                self.spool.took(record, run_id)
                return True
            except UnknownRunError as error:
                self._refuse(record, error)
                return True
            except Exception as error:
                self._unsure = True
                if self.server.alive():
                    self._back()
                    tries += 1
                    if not passing(error) or tries >= _TRIES:
                        self._refuse(record, error)
                        return True
                    self._over.wait(_PAUSES_S[0])
                else:
                    self._lost(error)
        return False

    def _lost(self, error: Exception) -> None:
        if not self.away:
            self.away, self._pauses = True, iter(_PAUSES_S)
            reason = without_password((str(error).splitlines() or [""])[0])[:200]
            self.warn(
                f"tracking: {without_password(self.server.uri)} does not answer ({reason}); "
                f"the job goes on, its records wait in {self.spool.folder}"
            )
        self._over.wait(next(self._pauses, _PAUSES_S[-1]))

    def _back(self) -> None:
        if self.away:
            self.away = False
            self.warn(f"tracking: {without_password(self.server.uri)} answers again")

    def _refuse(self, record: Record, error: Exception) -> None:
        self.refused += 1
        if self.refused == 1:
            reason = without_password((str(error).splitlines() or [""])[0])[:300]
            self.warn(
                f"tracking: {record.verb} was refused ({type(error).__name__}: {reason}); "
                "later refusals are counted, not printed"
            )
        self.spool.took(record)
