"""Bars for long serial reads on the driver, such as a run file of 251 million lines.

Who starts the work decides whether bars are shown (`shown`); a reader only says how far it is
(`watched`). A thread asks it five times a second, so the loop that reads is not touched. The two
are joined by a context variable: between them lie a dozen functions that have nothing to do with
either.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

DELAY_S = 2.0
"""What is read within this time shows nothing."""
POLL_S = 0.2
_TITLE: ContextVar[str | None] = ContextVar("title", default=None)


@contextlib.contextmanager
def shown(title: str, yes: bool) -> Iterator[None]:
    """Whether reads of the body have bars, and what stands before them."""
    token = _TITLE.set(title if yes else None)
    try:
        yield
    finally:
        _TITLE.reset(token)


@contextlib.contextmanager
def watched(what: str, total: int | None, position: Callable[[], int]) -> Iterator[None]:
    """A bar while the body runs, if it is run inside `shown`.

    Args:
        total: what `position` reaches in the end; None if that is not known.
        position: asked in another thread.
    """
    if (title := _TITLE.get()) is None:
        yield
        return
    over = threading.Event()
    show = threading.Thread(
        target=_show, args=(f"{title}: {what}", total, position, over), daemon=True
    )
    show.start()
    try:
        yield
    finally:
        over.set()
        show.join()


@contextlib.contextmanager
def reading(raw: IO[bytes]) -> Iterator[None]:
    """A bar of a file's bytes, packed ones where it is packed."""
    number = raw.fileno()
    with watched(
        Path(str(raw.name)).name,
        os.fstat(number).st_size,
        lambda: os.lseek(number, 0, os.SEEK_CUR),  # raw.tell would wait for the reading thread
    ):
        yield


def _show(
    label: str, total: int | None, position: Callable[[], int], over: threading.Event
) -> None:
    if over.wait(DELAY_S):
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(), transient=True) as bars:
        task = bars.add_task(label, total=total)
        while not over.wait(POLL_S):
            bars.update(task, completed=position())


def _console() -> Any:
    from rich.console import Console

    return Console(stderr=True)
