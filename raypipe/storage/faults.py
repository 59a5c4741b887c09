"""Errors of disks and buckets, as sentences with a remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from raypipe.storage.masking import without_secrets

_AGAIN = "what was finished stays, and the same command goes on from there"
_SPACE = "free space there, or set another storage= or $RAYPIPE_HOME"
_RIGHTS = "give this user the right to write there, or set another storage= or $RAYPIPE_HOME"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "raise the limit of a file's size there, or set another storage=",
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EIO: "look at that disk, or set another storage=",
    errno.ESTALE: "mount that file system again",
}


def of_the_storage(error: BaseException) -> str | None:
    """What to say of an error that a disk or a bucket caused; None if it has another cause."""
    from obstore.exceptions import BaseError

    for cause in reversed(list(_causes(error))):
        number = getattr(cause, "errno", None)
        known = number in _REMEDIES or number is None
        if isinstance(cause, OSError | BaseError) and known:
            lines = str(cause).strip().splitlines() or [type(cause).__name__]
            parts = [without_secrets(lines[-1]), _REMEDIES.get(number or 0, ""), _AGAIN]
            return "; ".join(part for part in parts if part)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it comes from: Ray's errors hold the error of a task."""
    while True:
        yield error
        inner = getattr(error, "cause", None)
        inner = inner if isinstance(inner, BaseException) else error.__cause__
        if inner is None or inner is error:
            return
        error = inner
