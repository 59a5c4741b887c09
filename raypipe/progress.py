"""What people see of work: lines of a job's processes, times, and bars for long serial reads.

A read that has a bar is, for example, that of a run file of 251 million lines.

The caller that starts the work decides whether bars are drawn (`shown`); the reader tells how far
the work is (`reading`, `counting`). A context variable joins the two, because a dozen functions
that know nothing of bars lie between them. rich draws the bars and is imported only when one is
drawn.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO, TYPE_CHECKING

from raypipe.names import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


Say = Callable[[str], None]
"""Shows people one line of what a job does, such as `print`."""
OWN = "raypipe: "
"""Begins the lines that other processes of a job print for its terminal, which leaves it out."""
DELAY_S = 2.0
"""A read that ends within this time draws nothing."""
_UNITS = (("hour", 3600), ("minute", 60), ("second", 1))
_BUFFER = 1 << 18  # bytes read at a time: readers of lines would move the bar once a line
_TITLE: ContextVar[str | None] = ContextVar("title", default=None)
_FOOT: ContextVar[Progress | None] = ContextVar("foot", default=None)


def say_from_afar(line: str) -> None:
    """Print a line in another process of the job, for the job's terminal; Ray carries it there."""
    print(f"{OWN}{line}", flush=True)


def duration(seconds: float) -> str:
    """The two largest units that are not 0.

    >>> duration(3725.4)
    '1 hour 2 minutes'
    """
    rest, words = round(seconds), []
    for name, size in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            words.append(f"{count} {name}{'s' * (count > 1)}")
    return " ".join(words[:2]) or "less than a second"


def watched() -> bool:
    """Whether somebody sees what this process prints as it is printed."""
    return sys.stdout.isatty() and sys.stderr.isatty()


@contextlib.contextmanager
def shown(title: str, yes: bool, line: str = "") -> Iterator[None]:
    """In the body, draw a bar for every read if `yes`, with the title before each bar.

    Args:
        line: stands at the foot of the terminal meanwhile, above the bars.
    """
    token = _TITLE.set(title if yes else None)
    try:
        with _foot(line) if yes and line else contextlib.nullcontext():
            yield
    finally:
        _TITLE.reset(token)


@contextlib.contextmanager
def _foot(line: str) -> Iterator[None]:
    """The line with a spinner, from `DELAY_S` on; bars of the body below it, with the time left."""
    from rich.progress import Progress, SpinnerColumn, TextColumn
    from rich.table import Column

    cut = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    text = TextColumn("{task.description}", markup=False, table_column=cut)
    _, _, *others = Progress.get_default_columns()  # how much of it, and the time left
    console = _console()
    progress = Progress(
        *(SpinnerColumn(), text, *others),
        console=console,
        expand=True,
        transient=True,
        disable=not console.is_interactive,
        refresh_per_second=4,
    )
    progress.add_task(printable(line), total=None)
    token = _FOOT.set(progress)
    try:
        with _started_late(progress):
            yield
    finally:
        _FOOT.reset(token)


@contextlib.contextmanager
def _started_late(progress: Progress) -> Iterator[None]:
    """Draw from `DELAY_S` on, if the body takes so long."""
    start = threading.Timer(DELAY_S, progress.start)
    start.daemon = True
    start.start()
    try:
        yield
    finally:
        start.cancel()
        start.join()  # the timer may be drawing just now
        progress.stop()


@contextlib.contextmanager
def reading(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file `raw`, whose bar moves with the bytes read; of a packed file, the packed bytes.

    The caller opens and closes `raw`; outside of `shown` the body gets `raw` itself.
    """
    with _bar(Path(str(raw.name)).name, os.fstat(raw.fileno()).st_size) as bar:
        if bar is None:
            yield raw
            return
        progress, task = bar
        tracked: io.RawIOBase = progress.wrap_file(raw, task_id=task)  # type: ignore[arg-type, assignment]
        yield io.BufferedReader(tracked, _BUFFER)


@contextlib.contextmanager
def counting(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar that the body moves: it calls the function that it gets with its position.

    Args:
        total: the last position; None if unknown.
    """
    with _bar(what, total) as bar:
        if bar is None:
            yield lambda position: None
            return
        progress, task = bar
        yield lambda position: progress.update(task, completed=position)


@contextlib.contextmanager
def _bar(what: str, total: int | None) -> Iterator[tuple[Progress, TaskID] | None]:
    """A bar that appears after `DELAY_S` on a terminal; None outside of `shown`."""
    if (title := _TITLE.get()) is None:
        yield None
        return
    label = f"{title}: {printable(what)}"
    if (foot := _FOOT.get()) is not None:
        task = foot.add_task(label, total=total)
        try:
            yield foot, task
        finally:
            foot.remove_task(task)
        return
    from rich.progress import Progress, TextColumn

    console = _console()
    columns = TextColumn("{task.description}", markup=False), *Progress.get_default_columns()[1:]
    progress = Progress(
        *columns, console=console, transient=True, disable=not console.is_interactive
    )
    task = progress.add_task(label, total=total)
    with _started_late(progress):
        yield progress, task


def any_character() -> None:
    """Let this process print what its terminal has no character for: a `?` stands for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)
