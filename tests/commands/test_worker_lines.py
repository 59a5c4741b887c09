"""What the terminal shows of what Ray carries from a job's processes."""

from __future__ import annotations

import os
import re
from types import SimpleNamespace

import pytest
from ray._private import ray_logging

from raypipe.commands.worker_lines import WorkerLines, print_with_time, show_own_lines
from raypipe.progress import OWN

NOISE = [
    "[2026-01-02 03:04:05,678 E 11 12] core_worker_process.cc:837: Failed to establish connection "
    "to the metrics exporter agent.",
    "[2026-01-02 03:04:05,678 W 11 12] (raylet) core_worker.cc:1: x",
    "[mutex.cc : 2443] RAW: Potential Mutex deadlock",
    "WARNING: 8 PYTHON worker processes have been started on node: 1f with address: 127.0.0.1, "
    "which is 4x the maximum expected startup concurrency (2).",
    "[W102 03:04:05.1 socket.cpp:200] The IPv6 network addresses cannot be retrieved",
]
OOM = (
    "[2026-01-02 03:04:05,678 E 1 1] (raylet) node_manager.cc:3064: 1 Workers (tasks / actors) "
    "killed due to memory pressure (OOM)"
)


class Prints(list):
    """In the place of Ray's own printing."""

    def __call__(self, batch) -> None:
        print(*(f"(ray pid={batch['pid']}) {line}" for line in batch["lines"]), sep="\n")


def batch(*lines: str, is_err: bool = False) -> dict[str, object]:
    return {"lines": list(lines), "is_err": is_err, "pid": 7}


def lines(*, colours: bool = False) -> WorkerLines:
    return WorkerLines(Prints(), print, colours=colours)


def test_own_lines_stand_without_rays_prefix_and_in_order(capsys):
    lines()(batch(f"{OWN}a: step 1/2", "Traceback", f"{OWN}a: step 2/2", f"{OWN}a: step 2/2"))
    expected = ["a: step 1/2", "(ray pid=7) Traceback", "a: step 2/2", "a: step 2/2"]
    assert capsys.readouterr().out.splitlines() == expected


def test_only_a_terminal_gets_colours(capsys):
    coloured = batch("\x1b[36mloading\x1b[0m weights")
    lines()(coloured)
    lines(colours=True)(coloured)
    plain, kept = capsys.readouterr().out.splitlines()
    assert plain == "(ray pid=7) loading weights" and "\x1b[36m" in kept


def test_in_a_file_lines_have_times(capsys):
    print_with_time("a: step 1/2")
    assert re.fullmatch(r"\d\d:\d\d:\d\d a: step 1/2\n", capsys.readouterr().out)


@pytest.mark.parametrize("line", [*NOISE, f"\x1b[33m{NOISE[0]}"])
def test_what_ray_says_of_itself_is_left_out(capsys, line):
    lines()(batch(line))
    assert capsys.readouterr() == ("", "")


def test_an_excused_traceback_is_left_out_and_the_next_is_not(capsys):
    shown = lines()
    shown(batch("Failed to send. If transient, it's safe to ignore this error. It is late."))
    shown(batch("Traceback (most recent call last):", "  File x", "    ray.get("))
    shown({**batch("Traceback (most recent call last):"), "pid": 8})
    shown(batch("ray.exceptions.GetTimeoutError: Get timed out", "Traceback", "ValueError: bad"))
    assert capsys.readouterr().out.splitlines() == [
        "(ray pid=8) Traceback (most recent call last):",
        "(ray pid=7) Traceback",
        "(ray pid=7) ValueError: bad",
    ]


@pytest.mark.parametrize("line", [OOM, "core_worker.cc is a file", "ValueError: [mutex.cc]", ""])
def test_what_people_need_stays(capsys, line):
    lines()(batch(line))
    assert capsys.readouterr().out == f"(ray pid=7) {line}\n"


def test_rays_printing_is_replaced_once(monkeypatch, capsys):
    dispatcher = ray_logging.WorkerStandardStreamDispatcher()
    monkeypatch.setattr(ray_logging, "global_worker_stdstream_dispatcher", dispatcher)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True))
    show_own_lines()  # Ray carries nothing to this job
    assert dispatcher.handlers == []
    dispatcher.add_handler("ray_print_logs", Prints())
    show_own_lines()
    show_own_lines()
    assert len(dispatcher.handlers) == 1
    monkeypatch.undo()
    dispatcher.emit(batch(f"{OWN}a", "b"))
    assert capsys.readouterr().out == "a\n(ray pid=7) b\n"
