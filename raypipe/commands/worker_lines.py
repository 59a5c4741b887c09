"""What a job's terminal shows of the other processes: their own lines without Ray's, and warnings.

Ray carries every line of its processes to the job. A line of raypipe moves a bar on a terminal, or
is printed, with the time where nobody watches; what Ray's processes write of themselves is left in
Ray's logs; all else, such as a traceback, is printed as Ray does it.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any

from raypipe.commands.live_stages import LiveStages
from raypipe.progress import OWN

Batch = Mapping[str, Any]
"""`lines` of one process, and whether they are `is_err`, as Ray's log monitor sends them."""
_HANDLER = "ray_print_logs"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NOISE = re.compile(
    r"^\[[\d\-: ,.]+ [IWE] \d+ \d+\] (\(\w+\) )?(core_worker\w*|mutex|process|metric\w*)\.cc:\d+"
    r"|^\[mutex\.cc : \d+\] RAW:"
    r"|^\[[WE]\S* [\d:.]+ ?socket\.cpp:\d+\]"
    r"|^\[Gloo\] Rank \d+ is connected"
    r"|^WARNING: \d+ PYTHON worker processes have been started on node"
)
"""Lines of Ray's and torch's C++ that ask nothing of anybody: slots, claims and tracking are many
processes on purpose."""
_EXCUSED = "it's safe to ignore this error"
"""Ray's word before the traceback of a request that a busy machine was late for."""
_TRACEBACK = re.compile(r"Traceback |\s|[\w.]+(Error|Exception)\b")


class WorkerLines:
    """Shows batches of lines.

    Args:
        ray_prints: prints a batch as Ray does, with the name of the process before each line.
        show: shows a line of raypipe.
        colours: whether other lines keep theirs, as on a terminal.
    """

    def __init__(
        self, ray_prints: Callable[[Batch], None], show: Callable[[str], None], *, colours: bool
    ) -> None:
        self._ray_prints, self._show, self._colours = ray_prints, show, colours
        self._excused: set[object] = set()  # processes in whose excused traceback we are

    def __call__(self, batch: Batch) -> None:
        """Show a batch."""
        for own, lines in groupby(self._kept(batch), lambda line: line.startswith(OWN)):
            if not own:
                self._ray_prints({**batch, "lines": list(lines)})
                continue
            for line in lines:
                self._show(line.removeprefix(OWN))

    def _kept(self, batch: Batch) -> Iterator[str]:
        for line in batch["lines"]:
            plain = _COLOUR.sub("", line)
            if not self._left_out(batch["pid"], plain):
                yield line if self._colours else plain

    def _left_out(self, process: object, line: str) -> bool:
        if _EXCUSED in line:
            self._excused.add(process)
            return True
        if process in self._excused and _TRACEBACK.match(line):
            if not line.startswith(("Traceback ", " ")):
                self._excused.remove(process)  # the exception ends it
            return True
        self._excused.discard(process)
        return _NOISE.match(line) is not None


def print_with_time(line: str) -> None:
    """Print a line where nobody watches, such as a file."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


def show_own_lines() -> None:
    """From now on show what Ray carries to this job by `WorkerLines`."""
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    ray_prints = dict(dispatcher.handlers).get(_HANDLER)
    if ray_prints is None or isinstance(ray_prints, WorkerLines):
        return
    watched = sys.stdout.isatty()
    if not watched:
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # read before each line
    show: Callable[[str], None] = LiveStages() if watched else print_with_time
    dispatcher.remove_handler(_HANDLER)
    dispatcher.add_handler(_HANDLER, WorkerLines(ray_prints, show, colours=watched))
