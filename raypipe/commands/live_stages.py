"""Bars of the stages that are being trained, at the foot of a terminal; other lines go above."""

from __future__ import annotations

import atexit
import re
from typing import TYPE_CHECKING

from raypipe.names import rich_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_STEP = re.compile(r"(?P<label>.+): step (?P<step>\d+)/(?P<total>\d+)  (?P<news>.*)")


class LiveStages:
    """Shows a job's lines: those that say how far a stage is move its bar.

    What validation found, and a stage's last step, are printed too, so that they stay. Any other
    line of a stage takes its bar away; if the stage goes on, its next step brings the bar back.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}

    def __call__(self, line: str) -> None:
        """Show a line."""
        found = _STEP.fullmatch(line)
        moves = found is not None and found["step"] != found["total"]
        if not moves:
            for label in [label for label in self._bars if line.startswith(f"{label}: ")]:
                self._end(label)
        if not moves or "validation " in line:
            self._print(line)
        if found is not None and moves:
            self._move(found["label"], int(found["step"]), int(found["total"]), found["news"])

    def close(self) -> None:
        """Take all bars away."""
        for label in list(self._bars):
            self._end(label)

    def _print(self, line: str) -> None:
        if self._progress is None:
            print(line, flush=True)
        else:
            self._progress.console.print(rich_text(line))

    def _move(self, label: str, step: int, total: int, news: str) -> None:
        progress = self._started()
        if label not in self._bars:
            self._bars[label] = progress.add_task(label, total=total, completed=step, news=news)
        progress.update(self._bars[label], completed=step, news=news, refresh=True)

    def _started(self) -> Progress:
        if self._progress is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[news]}", markup=False),
                console=self._console,
                transient=True,
            )
            self._progress.start()
            self._progress.console.show_cursor(True)  # a job that is killed must not hide it
            atexit.register(self.close)
        return self._progress

    def _end(self, label: str) -> None:
        if self._progress is None or label not in self._bars:
            return
        self._progress.remove_task(self._bars.pop(label))
        if not self._bars:
            self._progress.stop()
            self._progress = None
            atexit.unregister(self.close)
