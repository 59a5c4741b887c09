"""The thread that carries records from the spool to the server, as long as it takes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from raypipe.storage.address import Address
from raypipe.tracking.client import import_mlflow
from raypipe.tracking.patience import CALL_S, DeniedError, is_denied, seconds, tries
from raypipe.tracking.record import DAMAGED, Record
from raypipe.tracking.server import Server, UnknownRunError
from raypipe.tracking.spool import Spool

_log = logging.getLogger(__name__)
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0)
_STOP_S = 30.0
_SLOW = 4
_REASON, _SENTENCE = 200, 800  # characters of others' words, of our own


class Sender:
    """A thread that sends a spool's records in order, and counts those that the server refuses.

    Args:
        warn: called with one sentence when the server goes away, when it answers again, and for the
            first refused record.
    """

    def __init__(self, spool: Spool, server: Server, warn: Callable[[str], None]) -> None:
        self.spool, self.server, self.warn = spool, server, warn
        self.refused = 0
        self.away = False
        """Whether the last call found no server, or a server in trouble."""
        self._news = threading.Event()
        self._over = threading.Event()
        self._now = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="tracking")
        self._timed_out = False
        self._unsure = True  # the process before this one may have died after a call
        self._moved = time.monotonic()
        self._may_take = CALL_S
        self._thread.start()

    def wake(self) -> None:
        """Tell the thread that the spool has a new record."""
        self._news.set()

    def stuck(self, since: float, patience: float) -> bool:
        """Whether waiting is over: all records are sent, or the server took none for too long.

        Too long is `patience` seconds after `since` for a server that is away, more for a server
        that did not answer in time, and the record's own time for a server that seems to answer:
        a call may never return.
        """
        if not self.spool.waiting or not self._thread.is_alive():
            return True
        slow = _SLOW * patience  # the server is there, and may answer the next time
        most = (slow if self._timed_out else patience) if self.away else self._may_take
        most = max(most, patience)
        return time.monotonic() - max(since, self._moved) > most

    def again(self) -> None:
        """Try now instead of waiting for the next try."""
        self._now.set()

    def end(self) -> None:
        """Tell the thread to end after the record at hand."""
        self._over.set()
        self._news.set()
        self._now.set()

    def ended(self, seconds: float) -> bool:
        """Whether the thread has ended, after waiting up to `seconds` for it."""
        self._thread.join(timeout=seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        import_mlflow()
        while not self._over.is_set():
            self._news.clear()
            try:
                for record in self.spool.unsent():
                    if not self._send(record):
                        return
            except OSError as error:  # the disk with the records; it may be there again
                self._lost(error)
            else:
                self._news.wait()

    def _send(self, record: Record) -> bool:
        """Try until the server takes or refuses the record; False if the thread is to end."""
        self._moved, self._may_take = time.monotonic(), seconds(record)
        if record.verb == DAMAGED:
            self._refuse(record, "it is damaged; the folder is kept")
            return True
        failures = 0
        while not self._over.is_set():
            try:
                run_id = self.server.deliver(
                    record, self.spool.runs, self._unsure or self.spool.is_continued
                )
                self._back()
                self._unsure = False
                self.spool.took(record, run_id)
                return True
            except UnknownRunError as error:
                self._refuse(record, self._text(error))
                return True
            except Exception as error:
                self._unsure = True
                failures += 1
                if failures >= tries(error, record) and self.server.alive():
                    self._back()
                    self._refuse(record, self._text(error))
                    return True
                self._lost(error)
        return False

    def _lost(self, error: Exception) -> None:
        if not self.away:
            self.away, self._pauses = True, iter(_PAUSES_S)
            why = self._reason(error, _REASON if not isinstance(error, DeniedError) else _SENTENCE)
            does = f"does not {'take records' if is_denied(error) else 'answer'} ({why})"
            self.warn(
                f"tracking: {Address(self.server.uri)} {does}; the job goes on, its records wait "
                f"in {self.spool.folder}"
            )
        self._timed_out = "timed out" in str(error).lower()
        self._now.wait(next(self._pauses, _PAUSES_S[-1]))
        self._now.clear()

    def _back(self) -> None:
        if self.away:
            self.away = False
            self.warn(f"tracking: {Address(self.server.uri)} answers again")

    def _refuse(self, record: Record, why: str) -> None:
        self.refused += 1
        if self.refused == 1:
            line = f"line {record.number + 1} of the records in {self.spool.folder}"
            self.warn(
                f"tracking: {line if record.verb == DAMAGED else record.verb} was refused ({why}); "
                "later refusals are counted, not printed"
            )
        self.spool.took(record)

    def _text(self, error: Exception) -> str:
        return f"{type(error).__name__}: {self._reason(error, 300)}"

    def _reason(self, error: Exception, most: int) -> str:
        """The first line of an error's text, without secrets."""
        return Address(self.server.uri).clean((str(error).splitlines() or [""])[0])[:most]


def drain(senders: Sequence[Sender], patience: float) -> int:
    """Wait until every sender has sent all records or is stuck.

    The senders are waited for together: several spools for a dead server cost `patience` once.

    Returns:
        The number of records that still wait.
    """
    began = time.monotonic()
    for sender in senders:
        sender.again()
    while not all(sender.stuck(began, patience) for sender in senders):
        time.sleep(0.05)
    return sum(sender.spool.waiting for sender in senders)


def stop(senders: Sequence[Sender]) -> None:
    """End all senders, each after the record at hand, and close their spools."""
    for sender in senders:
        sender.end()
    deadline = time.monotonic() + _STOP_S
    for sender in senders:
        if sender.ended(max(deadline - time.monotonic(), 0.0)):
            sender.spool.close()  # else its call may still arrive: the lock goes with this process
