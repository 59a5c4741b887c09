"""Copies of remote folders on this node: each made once, all together below a size limit.

`$RAYPIPE_HOME/cache/<kind>/<name>-<digest>/` holds `<attempt>/`, a copy, and beside it
`<attempt>.lock`, its marker. The marker's text is the size of the copy in bytes, its mtime the last
use. A process that uses the copy holds a shared lock on the marker; a process that fills
`<attempt>.part/` holds an exclusive one. The kernel releases the locks of a dead process, and no
child that starts another program inherits them: Python opens files close-on-exec. `<attempt>.seen`
says which files had their checksums when they were last read; one that changed since, or is gone,
is fetched again.

Markers are opened, locked, written and removed under the lock of the whole cache, `cache/.lock`.
So nobody holds a marker that another process has just removed.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from raypipe.config import ConfigError
from raypipe.storage.copies import Copy, CopyError, RemoteFolder, fetch, lock, mend, remember
from raypipe.storage.files import home, locked, make_folder, open_own

LIMIT = "RAYPIPE_CACHE_GB"
"""The environment variable with the size limit, in GB, of all copies on a node together."""

_FETCHES = 8
"""Files that are copied at a time, as many as Arrow has threads for reading and writing."""

_held: dict[Path, IO[str]] = {}
"""By copy: the markers that this process holds until it ends. They must live here: callers keep
paths and memory maps, which hold no lock."""


def localize(remote: RemoteFolder) -> Path:
    """A copy of the folder on this node, which stays until this process ends.

    The first process that asks copies the files and checks them against their checksums; processes
    that ask meanwhile wait for that copy. The least recently used copies go to make room, never one
    in use.

    Raises:
        ConfigError: $RAYPIPE_CACHE_GB is no positive number.
        CopyError: no room below the limit or on the disk, found out before anything is copied; or
            a copied file does not have its committed checksum; or something else stands where the
            cache has a file or a folder of its own.
    """
    copy = _copy_of(remote)
    marker = _use(copy, remote)
    earlier = _held.get(copy.folder)
    _held[copy.folder] = marker
    if earlier is not None:
        earlier.close()
    return copy.folder


@contextlib.contextmanager
def localized(remote: RemoteFolder) -> Iterator[Path]:
    """As `localize`, but the copy may go when the block ends."""
    copy = _copy_of(remote)
    with _use(copy, remote):
        yield copy.folder


def _root() -> Path:
    return home() / "cache"


def _copy_of(remote: RemoteFolder) -> Copy:
    return Copy(_root() / remote.path)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Inside the block no other process or thread of this node changes the cache."""
    try:
        make_folder(_root())
        with locked(_root() / ".lock"):
            yield
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        if not (error.filename and Path(error.filename).is_relative_to(_root())):
            raise
        path = Path(error.filename)
        wrong = next(place for place in (path, *path.parents) if os.path.lexists(place))
        raise CopyError(
            f"{wrong}: expected what raypipe keeps its copies of remote files with, found another "
            f"kind of file ({error.strerror}); remove it"
        ) from None


def _use(copy: Copy, remote: RemoteFolder) -> IO[str]:
    """The copy's marker, under a shared lock; the copy is made if there is none."""
    while True:
        with contextlib.ExitStack() as handle:
            with _alone():
                make_folder(copy.marker.parent)
                marker = handle.enter_context(open_own(copy.marker, "a+"))
                whole = copy.whole()
                locked_now = lock(marker, exclusive=not whole)
                if locked_now and not whole:
                    _make_room(copy, remote)
                elif locked_now:
                    mend(copy, remote)
                if locked_now:
                    copy.marker.write_text(str(remote.size), "utf-8")  # its mtime: the last use
            if locked_now and not whole:
                _fill(copy, remote, marker)
            if locked_now:
                handle.pop_all()
                return marker
            lock(marker, exclusive=False, wait=True)  # until the filling process is done, or dead


def _fill(copy: Copy, remote: RemoteFolder, marker: IO[str]) -> None:
    """Copy the files, check them, and share the marker, which this process alone holds."""
    try:
        copy.part.mkdir(0o700)
        with ThreadPoolExecutor(_FETCHES) as pool:
            list(pool.map(lambda name: fetch(remote, name, copy.part / name), remote.files))
    except BaseException:
        with _alone():
            copy.discard()
        raise
    with _alone():
        copy.part.rename(copy.folder)
        remember(copy, remote)
        lock(marker, exclusive=False)


def _make_room(copy: Copy, remote: RemoteFolder) -> None:
    """Remove the least recently used copies until this one fits; none of them if it cannot fit.

    Half-filled copies of dead processes go in any case.
    """
    _sweep()
    copy.clear()
    limit, need = _limit(), remote.size
    sizes = {other: other.size for other in _copies() if other != copy}
    coming = sum(max(sizes[c] - c.written, 0) for c in sizes if not c.whole())
    below_limit = limit - sum(sizes.values())
    on_disk = shutil.disk_usage(_root()).free - coming
    victims: list[Copy] = []
    for oldest in sorted(sizes, key=lambda copy: copy.last_use):
        if need <= min(below_limit, on_disk):
            break
        if not oldest.in_use():
            victims.append(oldest)
            below_limit += sizes[oldest]
            on_disk += sizes[oldest]
    if need > min(limit, below_limit, on_disk):
        in_use = {other: size for other, size in sizes.items() if other not in victims}
        raise CopyError(f"{remote.shown}: {_no_room(need, limit, below_limit, on_disk, in_use)}")
    for victim in victims:
        victim.discard()


def _no_room(
    need: int, limit: int, below_limit: int, on_disk: int, in_use: Mapping[Copy, int]
) -> str:
    """The sentence for an artifact of `need` bytes that does not fit.

    Args:
        below_limit: bytes below the limit if every copy goes that no process uses.
        on_disk: the same of the disk.
    """
    if need > limit:
        return (
            f"expected an artifact of at most {_gb(limit)}, the limit of all copies in {_root()}, "
            f"found one of {_gb(need)}; set {_at_least(need)}"
        )
    remedies = ["let the jobs end that use the copies"] if in_use else []
    if need > below_limit:
        remedies.append(f"set {_at_least(limit + need - below_limit)}")
    if need > on_disk:
        remedies.append("free space on that disk or set RAYPIPE_HOME to a folder on a larger one")
    return (
        f"expected room for {_gb(need)} in {_root()}, found, without the copies that no process "
        f"uses, {_gb(below_limit)} below the limit of {_gb(limit)} and {_gb(on_disk)} free on the "
        f"disk; in use: {_listed(in_use)}; {', or '.join(remedies)}"
    )


def _copies() -> list[Copy]:
    """Every copy that has a marker; remembered checksums, below the same root, have none."""
    markers = [path for path in sorted(_root().glob("*/*/*.lock")) if path.is_file()]
    return [Copy(marker.with_suffix("")) for marker in markers]


def _sweep() -> None:
    """Remove half-filled and half-removed copies of dead processes."""
    for copy in _copies():
        if not copy.whole() and not copy.in_use():
            copy.discard()


def surplus() -> dict[str, int]:
    """Bytes of the copies without which all others are below the limit, by their path in the cache.

    They are half-filled copies of dead processes, and the least recently used of those that no
    process uses.

    Raises:
        ConfigError: $RAYPIPE_CACHE_GB is no positive number.
    """
    if not _root().is_dir():
        return {}
    with _alone():
        free = [copy for copy in _copies() if not copy.in_use()]
        above = sum(copy.size for copy in _copies()) - _limit()
        going: dict[Copy, int] = {}
        for copy in sorted(free, key=lambda copy: (copy.whole(), copy.last_use)):
            if not copy.whole() or above > 0:
                above -= copy.size
                going[copy] = copy.written
        return {str(copy.folder.relative_to(_root())): size for copy, size in going.items()}


def discard(path: str) -> bool:
    """Remove the copy at a path that `surplus` gave; False if it is gone or in use by now."""
    with _alone():
        copy = Copy(_root() / path)
        if not copy.marker.exists() or copy.in_use():
            return False
        copy.discard()
    return True


def _limit() -> int:
    """Bytes of all copies together, at most."""
    chosen = chosen_limit()
    return shutil.disk_usage(_root()).total // 2 if chosen is None else chosen


def chosen_limit() -> int | None:
    """The limit in bytes that the environment gives; None if it gives none.

    Raises:
        ConfigError: $RAYPIPE_CACHE_GB is no positive number.
    """
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return None
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 < gigabytes < math.inf:
        raise ConfigError(
            f"{LIMIT}: expected a positive number of GB, found {text!r}; set {LIMIT}=200 or so"
        )
    return round(gigabytes * 1e9)


def _at_least(size: int) -> str:
    return f"{LIMIT}={math.ceil(size / 1e9)} or more on every node"


def _gb(size: int) -> str:
    return f"{max(size, 0) / 1e9:,.3f} GB"


def _listed(sizes: Mapping[Copy, int]) -> str:
    """The largest copies, with their sizes."""
    largest = sorted(sizes, key=lambda copy: -sizes[copy])
    shown = [f"{copy.folder.parent.name} ({_gb(sizes[copy])})" for copy in largest[:5]]
    more = [f"{len(largest) - 5} more"] if len(largest) > 5 else []
    return ", ".join(shown + more) or "none"
