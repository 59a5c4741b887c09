"""Writers of one artifact in processes of their own, which begin at the same moment.

python tests/helpers/racers.py STORAGE ROUNDS WRITERS JITTER_MS [wait]      prints what went wrong

With `wait` the writers ask a Builder, which looks for others first; without, they only commit.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import time
from typing import Any

from number_steps import Number, read

from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder


def make(store: Store, step: Number, wait: bool) -> int:
    """The value in the artifact that this writer says it has."""
    if wait:
        return read(Builder(store).get(step).local())
    with store.attempt(step, {}) as attempt:
        artifact = attempt.commit(step.run(attempt, None))
    return read(artifact.local())


def work(uri: str, rounds: int, jitter: float, wait: bool, barrier: Any, answers: Any) -> None:
    store, rng = Store(uri), random.Random()
    for value in range(rounds):
        barrier.wait()
        time.sleep(rng.random() * jitter)
        try:
            answer = "done" if make(store, Number(value), wait) == value else "another value"
        except Exception as error:
            answer = repr(error)
        barrier.wait()  # all have said something
        there = store.find(Number(value)) is not None
        answers.put(answer if there else f"{answer}, and nothing is there")


def race(uri: str, rounds: int, writers: int, jitter: float, wait: bool) -> list[str]:
    """Whatever a writer said but "done", and what was left that nobody needs."""
    context = multiprocessing.get_context("spawn")  # a bucket's client does not survive a fork
    barrier, answers = context.Barrier(writers), context.Queue()
    arguments = (uri, rounds, jitter, wait, barrier, answers)
    processes = [context.Process(target=work, args=arguments) for _ in range(writers)]
    for process in processes:
        process.start()
    said = [answers.get() for _ in range(rounds * writers)]
    for process in processes:
        process.join()
    wrong = [answer for answer in said if answer != "done"]
    store = Store(uri)
    for value in range(rounds):
        artifact = store.find(Number(value))
        if artifact is None:
            wrong.append(f"{value} is lost")
        elif read(artifact.local()) != value:
            wrong.append(f"{value} has another value")
    return wrong


if __name__ == "__main__":
    uri, rounds, writers, jitter = sys.argv[1], *map(int, sys.argv[2:5])
    wrong = race(uri, rounds, writers, jitter / 1000, "wait" in sys.argv)
    print(f"{len(wrong)} of {rounds} rounds x {writers} writers went wrong", *wrong[:5], sep="\n")
    sys.exit(bool(wrong))
