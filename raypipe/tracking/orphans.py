"""The records of dead jobs: the next job sends them, or `python -m raypipe.tracking --send`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from raypipe.storage.address import Address
from raypipe.storage.masking import MASK
from raypipe.tracking.client import default_uri
from raypipe.tracking.sender import Sender, drain, stop
from raypipe.tracking.server import Server, now
from raypipe.tracking.spool import Spool, is_spool, spools

_log = logging.getLogger(__name__)


def left_behind(
    warn: Callable[[str], None] = _log.warning, root: Path | None = None
) -> list[Spool]:
    """Spools of dead jobs, oldest first; from now on this process holds them.

    Args:
        warn: given a sentence for every spool that cannot be sent; it holds up no other.
    """
    held = []
    parent = root or spools()
    try:
        folders = sorted(parent.iterdir()) if parent.is_dir() else []
    except OSError as error:
        warn(f"tracking: {parent} cannot be read ({error}); nothing of earlier jobs is sent")
        return []
    for folder in folders:
        try:
            spool = _taken(folder, warn)
        except FileNotFoundError:  # its job ended just now, and nothing was left
            continue
        except Exception as error:  # one spool, however damaged, holds up no job
            warn(f"tracking: {folder} cannot be read ({error}); its records stay there")
            continue
        if spool is not None:
            held.append(spool)
    return held


def _taken(folder: Path, warn: Callable[[str], None]) -> Spool | None:
    """The folder's spool, held; None if there is none, if its job lives, or if it is set aside."""
    if not is_spool(folder):
        return None
    spool = Spool(folder)
    if not spool.hold():
        return None
    if not (problem := spool.problem()):
        return spool
    warn(
        f"tracking: the records in {folder} cannot be sent: {problem}; they are set aside as "
        f"{spool.set_aside()}: move them back for the version that wrote them, or delete them"
    )
    spool.release()
    return None


def orphans(warn: Callable[[str], None], *known: Address) -> list[Sender]:
    """Senders of what dead jobs left; runs that are still open end as killed.

    A spool holds its server's address masked: keys come from an address that this process knows.
    """
    senders = []
    by_mask = {str(address): address for address in (Address(default_uri()), *known)}
    for spool in left_behind(warn):
        try:
            target = spool.target
            if MASK in target["uri"] and target["uri"] not in by_mask:
                warn(
                    f"tracking: the keys of {target['uri']} are not known here; the records in "
                    f"{spool.folder} wait for MLFLOW_TRACKING_URI=... "
                    "python -m raypipe.tracking --send"
                )
                spool.release()
                continue
            target["uri"] = by_mask.get(target["uri"], target["uri"])
            for run in spool.unfinished():
                with suppress(OSError):  # a full disk: the run stays open
                    spool.append("finish", run, {"status": "KILLED", "at": now()})
            senders.append(Sender(spool, Server(**target, say=warn), warn))
        except Exception as error:  # one spool, however damaged, holds up no job
            warn(f"tracking: {spool.folder} cannot be sent ({error!r}); its records stay there")
            spool.release()
    return senders


def send_left_behind(patience: float = 5.0, say: Callable[[str], None] = print) -> int:
    """Send the records of dead jobs; return how many still wait."""
    senders = orphans(say)
    waiting = drain(senders, patience)
    for sender in senders:
        left, refused = sender.spool.waiting, sender.refused
        outcome = f"{left} records wait" if left else "all records sent"
        outcome += f", {refused} of them refused" if refused and not left else ""
        say(f"{sender.server.uri}, {sender.server.experiment}: {outcome}")
    stop(senders)
    return waiting
