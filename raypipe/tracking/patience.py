"""How long a call to the tracking server may take, and how often a record is tried."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from raypipe.tracking.record import Record

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
"""MLflow's environment variable for the time-out of a request, in whole seconds."""
CONNECT_S = 5
"""The time to connect to a database."""
REQUEST_S = 15
"""The time of one request: a server on a busy machine answers its first calls after seconds."""
CALL_S = 60.0
"""The time of one record without files: a database that hangs has no time-out of its own."""
_UPLOAD_S = 15.0
_SLOWEST = 1 << 20  # bytes per second; a proxy answers when it has stored what it was given
_TRIES = 6  # of a record that a live server fails on, over half a minute
_DENIALS = {"PERMISSION_DENIED", "UNAUTHENTICATED"}
_PASSING = {
    *("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"),
    *("DEADLINE_EXCEEDED", "ABORTED", "CANCELLED"),
}
_STATUS = re.compile(r"too many (\d{3}) error responses|failed with error code (\d{3})")
_uploading = threading.Lock()


class DeniedError(Exception):
    """The server lets the user not write where the job's records go; the text says the remedy."""


def is_denied(error: Exception) -> bool:
    """Whether the server understood, and lets the user not do it."""
    code = getattr(error, "error_code", None)
    return isinstance(error, DeniedError) or code in _DENIALS or _status(error) in (401, 403)


def is_unknown_call(error: Exception) -> bool:
    """Whether the server has no such call, as one of an earlier version."""
    return _status(error) in (404, 405)


def first_line(error: Exception | None) -> str:
    """The first line of an error's text, cut; the caller takes the secrets out."""
    return (str(error).splitlines() or [""])[0][:200]


def tries(error: Exception, record: Record) -> float:
    """The number of tries, each with such an error, after which a record counts as refused.

    Infinite for errors that pass: no answer, a server that is away, busy or restarted, a locked
    file, a full disk. A server that breaks on a record while others go through (500) gets some
    tries; the start of a run gets infinitely many, because all records of the run depend on it, and
    so it does where it is denied: somebody may allow it before the records are sent again. A record
    that the server understands and rejects has one try, and so has one with half characters (lone
    surrogates), which no server can store.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    if not _is_text(record):
        return 1
    some = math.inf if record.verb == "start" else _TRIES
    if is_denied(error):
        return math.inf if record.verb == "start" or isinstance(error, DeniedError) else 1
    if (status := _status(error)) is not None:
        passes = status in (408, 429) or status > 501
        return some if status == 500 else math.inf if passes else 1
    if isinstance(error, MlflowException):
        if error.error_code == "INTERNAL_ERROR":  # also of requests that nobody answered
            return math.inf if str(error).startswith("API request") else some
        return math.inf if error.error_code in _PASSING else 1
    if isinstance(error, OperationalError | ConnectionError | TimeoutError):
        return math.inf
    if isinstance(error, OSError):  # of requests without an answer, or of files
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return math.inf if is_full or hasattr(error, "request") else some
    return 1


def _is_text(record: Record) -> bool:
    try:
        json.dumps([record.run, record.content], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _status(error: Exception) -> int | None:
    """The HTTP status of the server's answer, which MLflow's client gives only in words."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return int(status)
    words = _STATUS.search(str(error))
    return int(words[1] or words[2]) if words else None


def seconds(record: Record) -> float:
    """The time that a record may take before nobody waits for it any more."""
    return CALL_S + sum(map(_upload_s, record.files))


def _upload_s(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return _UPLOAD_S + sum(file.stat().st_size for file in files if file.is_file()) / _SLOWEST


@contextmanager
def uploading(paths: Sequence[Path]) -> Iterator[None]:
    """In the block, HTTP requests have the time that these files need.

    One thread at a time: the time-out is an environment variable of the process.
    """
    with _uploading:
        usual = os.environ.get(TIMEOUT, str(CONNECT_S))
        needed = max(map(_upload_s, paths), default=0.0)
        os.environ[TIMEOUT] = str(max(int(usual), math.ceil(needed)))
        try:
            yield
        finally:
            os.environ[TIMEOUT] = usual
