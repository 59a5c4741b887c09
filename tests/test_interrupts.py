"""Ctrl-C and SIGTERM, wherever a command is: one sentence, and what shells expect."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from raypipe.interrupts import SENTENCE, one_sentence

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = [signal.SIGINT, signal.SIGTERM]
START = """
import os, signal, sys, threading, time
from raypipe.interrupts import one_sentence
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)
"""


def run(body: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", START + body, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


def ended_by(number: int) -> tuple[int, str]:
    return 128 + number, f"{SENTENCE}\n"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_by_one_sentence(number):
    body = "with one_sentence():\n    send(int(sys.argv[1]))\n    print('went on')"
    done = run(body, str(int(number)))
    assert (done.returncode, done.stderr) == ended_by(number)
    assert done.stdout == ""


@pytest.mark.parametrize("number", SIGNALS)
def test_work_is_given_up_in_order(number):
    body = """
with one_sentence():
    try:
        send(int(sys.argv[1]))
    except BaseException as error:
        assert isinstance(error, KeyboardInterrupt)
        print("tidied up")
        raise
"""
    done = run(body, str(int(number)))
    assert (done.returncode, done.stderr) == ended_by(number) and done.stdout == "tidied up\n"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_the_tidying_up(number):
    body = """
with one_sentence():
    try:
        send(signal.SIGINT)
    finally:
        send(int(sys.argv[1]))
        print("tidied up")
"""
    done = run(body, str(int(number)))
    assert (done.returncode, done.stderr) == ended_by(number) and done.stdout == ""


def test_a_signal_at_the_end_of_the_process_leaves_no_traceback():
    body = """
import atexit
atexit.register(lambda: send(signal.SIGINT))
with one_sentence():
    send(signal.SIGTERM)
"""
    done = run(body)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, f"{SENTENCE}\n")


def test_what_the_caller_ignores_stays_ignored():
    body = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with one_sentence():
    send(signal.SIGINT)
    print("went on", flush=True)
    send(signal.SIGTERM)
"""
    done = run(body)
    assert (done.returncode, done.stderr) == ended_by(signal.SIGTERM)
    assert done.stdout == "went on\n"


def test_afterwards_the_handlers_are_those_before():
    before = [signal.getsignal(number) for number in SIGNALS]
    with one_sentence():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    with pytest.raises(ValueError, match="x"), one_sentence():
        raise ValueError("x")
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_thread_cannot_hear_signals_and_works_all_the_same():
    done: list[bool] = []

    def work() -> None:
        with one_sentence():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
