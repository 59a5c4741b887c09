"""Ctrl-C and SIGTERM end a command by one sentence, wherever it is."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

SENTENCE = "interrupted: what is finished stays, and the same command goes on from there"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what schedulers of clusters send."""


class Interrupted(KeyboardInterrupt):
    """A signal asks the command to end; libraries take it for Ctrl-C."""


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """End the process with the exit status of the signal that arrives in the body.

    It is raised there, so that work is given up in order; another one, meanwhile, ends what is in
    hand too. What the caller ignores, as nohup and shells in the background do, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number, handler in handlers.items() if handler is not signal.SIG_IGN]

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    for number in heard:
        signal.signal(number, interrupt)
    try:
        yield
    except Interrupted as interrupted:
        print(SENTENCE, file=sys.stderr, flush=True)
        for number in heard:
            signal.signal(number, signal.SIG_DFL)  # no traceback from what ends with the process
        sys.exit(128 + interrupted.args[0])
    finally:
        if any(signal.getsignal(number) is interrupt for number in heard):
            for number in heard:
                signal.signal(number, handlers[number])


@contextlib.contextmanager
def sigterm_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM that a command has set, in a body that starts Ray: with Ray's own
    the process ends without a word."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)
