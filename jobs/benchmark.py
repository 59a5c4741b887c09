#!/usr/bin/env python
"""Measure raypipe beside other programs on this machine, as ratios within one run.

    python jobs/benchmark.py [--only models mining vectors dense fixed increments] [--json FILE]
    python jobs/benchmark.py --only mining --passages 20000 200000
    python jobs/benchmark.py --choices
    python jobs/benchmark.py --ids 1000000
    python jobs/benchmark.py --gpu [--rehearse] [--json FILE]

Needs the extra `bench`. `models`: scoring and training beside sentence-transformers, as shipped and
at its best. `mining`: jobs/mine.py beside a plain script with bm25s. `vectors`: encoding beside
sentence-transformers, and gradient caching beside the plain step. `dense`: exact search beside
faiss. `fixed`: what a small job costs. `increments`: 1 % new documents and 5 % new queries beside
a fresh start. A ratio above 1 says how many times faster raypipe is, or
how many times less it takes. --choices compares raypipe's training with itself, one thing changed;
--ids two ways to look ids up; --gpu measures a GPU with random weights, in minutes and without Ray
(benchmarks/gpu.py), with --rehearse small models on this CPU. docs/speed.md says how to read it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

if TYPE_CHECKING:
    from benchmarks.rows import Measured

PARTS = ("models", "mining", "vectors", "dense", "fixed", "increments")
VERSIONS = ("torch", "transformers", "sentence-transformers", "bm25s", "faiss-cpu", "ray")


def main() -> None:
    """Print one line per comparison, as a Markdown table, and the same as JSON."""
    options = _options()
    if options.gpu:
        gpu = importlib.import_module("benchmarks.gpu")
        gpu.run(rehearse=options.rehearse, seconds=options.seconds, out=options.json)
        return
    if options.ids:
        importlib.import_module("benchmarks.ids").look_ups(options.ids)
        return
    rows = importlib.import_module("benchmarks.rows")
    facts = rows.machine(VERSIONS)
    print(", ".join(f"{name} {value}" for name, value in facts.items()) + "\n")
    text = rows.as_json(facts, rows.show(measured(options)))
    print(f"\n{text}")
    if options.json is not None:
        Path(options.json).write_text(text + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts")
    parser.add_argument("--seconds", type=float, default=6.0, help="per side and round of a rate")
    parser.add_argument("--rounds", type=int, default=3, help="of a rate; the best one counts")
    parser.add_argument("--repeats", type=int, default=2, help="of mining; the least cost counts")
    parser.add_argument("--passages", type=int, nargs="+", default=[20_000], help="to be mined")
    parser.add_argument("--choices", action="store_true", help="raypipe beside itself, no more")
    parser.add_argument("--ids", type=int, help="measure look-ups among so many, no more")
    parser.add_argument("--gpu", action="store_true", help="measure a GPU, no more")
    parser.add_argument("--rehearse", action="store_true", help="--gpu with small models on CPU")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file, too")
    return parser.parse_args()


def measured(options: argparse.Namespace) -> Iterator[Measured]:
    """The rows of the parts that are asked for."""

    def measure(raypipe: Callable[[], int], other: Callable[[], int]) -> tuple[float, float]:
        return rates(raypipe, other, options.seconds, options.rounds)

    arguments: dict[str, tuple[Any, ...]] = {
        "models": (measure,),
        "mining": (options.passages, options.repeats),
        "vectors": (measure,),
        "dense": (measure,),
        "fixed": (),
        "increments": (),
    }
    if options.choices:
        yield from importlib.import_module("benchmarks.models").choices(measure)
        return
    for part in options.only:
        yield from importlib.import_module(f"benchmarks.{part}").rows(*arguments[part])


def rates(
    raypipe: Callable[[], int], other: Callable[[], int], seconds: float, rounds: int
) -> tuple[float, float]:
    """What both ways do per second, the best of interleaved rounds, as other jobs may run."""
    best = [0.0, 0.0]
    for _ in range(rounds):
        for side, work in enumerate((raypipe, other)):
            work()  # warm
            started, done = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                done += work()
            best[side] = max(best[side], done / (time.perf_counter() - started))
    return best[0], best[1]


if __name__ == "__main__":
    main()
