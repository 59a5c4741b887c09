"""Bi-encoders: encoding beside sentence-transformers, and gradient caching beside the plain step.

A step of 64 texts of 64 tokens (16 queries with 3 documents each) with infonce over the step,
without dropout, in fp32: all texts alive at once, a quarter of them, a sixteenth.
Each is measured in a process of its own, so that peak memory is its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, too

from benchmarks.dense import Measure
from benchmarks.mining import PACKAGE
from benchmarks.rows import Measured

QUERIES, DOCS, LENGTH = 16, 3, 64
SHARES = (1, 4, 16)
"""How many parts of a step's tokens are alive one after the other."""
SIZES = (8, 16, 32, 64, 128)
"""Texts per batch that sentence-transformers may have at its best; 32 is its default."""
ENCODED, LONGEST = 256, 128
"""Texts of one call, and the tokens at which both cut."""
STEPS = 3
"""Of which the fastest counts."""


def rows(measure: Measure, lists: tuple[int, ...] = SHARES) -> Iterator[Measured]:
    """Against sentence-transformers, then a step against itself in parts.

    Args:
        measure: gives the rates of two ways, each of which returns how much it did.
    """
    yield from encoding(measure)
    yield from caching(lists)


# --- encoding ------------------------------------------------------------------------------------


def encoding(measure: Measure) -> Iterator[Measured]:
    """Texts per second, from strings to float32 vectors, in fp32 on both sides."""
    import torch
    from benchmarks import gpu, models
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(1)
    texts = [doc for _, doc in models.texts()][:ENCODED]
    own = own_encoding(texts)
    theirs = SentenceTransformer(str(models.folder()), device="cpu")
    theirs.max_seq_length = LONGEST

    def encode(size: int) -> Any:
        return theirs.encode(texts, batch_size=size, show_progress_bar=False)

    largest = np.abs(own() - encode(32)).max()
    assert largest < 1e-4, f"vectors differ by {largest}"
    bench = gpu.Bench("cpu", 1.0, len(texts), 0)
    found = {size: bench.rate(lambda size=size: len(encode(size))) for size in SIZES}
    best = max(found, key=lambda size: found[size])
    name = f"sentence-transformers {version('sentence-transformers')}"
    for way, size in (("batches of 32, its default", 32), (f"batches of {best}, its best", best)):
        rates = measure(lambda: len(own()), lambda size=size: len(encode(size)))
        work = f"encoding {len(texts)} texts, fp32"
        yield Measured(work, "texts/s", rates[0], f"{name}, {way}", rates[1])


def own_encoding(texts: list[str]) -> Any:
    """As the token store and an actor make vectors of a chunk."""
    from benchmarks import models

    from raypipe.inference.pairs import Template
    from raypipe.inference.scoring import TextEncoder, ready_to_score
    from raypipe.models.bi_encoder import BiEncoder
    from raypipe.models.tokenizer import load_tokenizer

    folder = models.folder()
    tokenizer = load_tokenizer(folder)
    model = BiEncoder(backbone=PACKAGE, max_length=LONGEST).load(folder, "cpu")
    encode = TextEncoder(
        ready_to_score(model, "cpu", "fp32"),
        Template.of(tokenizer, pair=False),
        LONGEST,
        2048,  # Context.batch_tokens
        "fp32",
        "cpu",
        prefixed=True,
    )

    def work() -> Any:
        tokens = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return encode([np.array(ids, dtype=np.int64) for ids in tokens])

    return work


# --- gradient caching ----------------------------------------------------------------------------


def caching(shares: tuple[int, ...]) -> Iterator[Measured]:
    """The plain step beside the same step in parts: memory above the model's own, seconds, and the
    largest difference of a gradient as a share of the largest gradient."""
    with tempfile.TemporaryDirectory() as place:
        plain = _in_a_process(shares[0], Path(place, str(shares[0])))
        for share in shares[1:]:
            part = _in_a_process(share, Path(place, str(share)))
            step = f"step of {QUERIES * (1 + DOCS)} texts, 1/{share} alive"
            yield Measured(f"{step}: memory", "MB", part["memory_mb"], "all alive at once",
                           plain["memory_mb"])  # fmt: skip
            yield Measured(f"{step}: time", "s", part["seconds"], "all alive at once",
                           plain["seconds"])  # fmt: skip
            difference = np.abs(part["gradients"] - plain["gradients"]).max()
            largest = float(np.abs(plain["gradients"]).max())
            yield Measured(f"{step}: gradient off by", "ppm", 1e6 * float(difference) / largest)


def _in_a_process(share: int, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    command = [sys.executable, __file__, str(share), str(folder)]
    env = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"exit {done.returncode} of {share}:\n{done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**figures, "gradients": np.load(folder / "gradients.npy")}


def one_step(share: int, folder: Path) -> dict[str, float]:
    """Measure the step with 1 / `share` of its tokens alive; its gradients go into the folder."""
    import torch
    from benchmarks import models

    from raypipe.losses.listwise import InfoNCE
    from raypipe.models.trained_bi_encoder import TrainedBiEncoder
    from raypipe.train.gradients import Gradients

    place = models.folder()
    config = TrainedBiEncoder(
        backbone=PACKAGE, max_length=LENGTH, query_length=LENGTH, hidden_dropout=0.0
    )
    model = config.load(place, 1, training=True, device="cpu")
    batcher, alive = text_batcher(folder, place), QUERIES * (1 + DOCS) * LENGTH // share
    blocks = list(replace(batcher, budget=alive).blocks(list(range(QUERIES))))
    loss = InfoNCE(over="step", temperature=0.05)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    gradients = Gradients(model, loss, "fp32", alive, scaler, None, True)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        gradients.add(blocks, QUERIES, lambda block, scores: None, blocks[0])

    with torch.no_grad():  # what libraries take at their first use
        model(**_inputs(blocks[0]))
    memory, seconds = _watched(step)
    found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    np.save(folder / "gradients.npy", torch.cat(found).numpy())
    return {"memory_mb": memory, "seconds": seconds}


def _inputs(block: Any) -> Any:
    from raypipe.inference.transfer import to_tensors

    _, inputs = block.batches[0]
    return to_tensors(inputs, "cpu")


def _watched(step: Any) -> tuple[float, float]:
    """(MB at most above what was there before, seconds of the fastest of `STEPS` steps)."""
    import psutil

    process, ended = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    ended.set()
    watcher.join()
    return (peak - before) / 1e6, min(seconds)


def text_batcher(data: Path, place: Path) -> Any:
    """Random texts of `LENGTH` tokens as groups, read as a stage's worker reads its own."""
    from benchmarks import gpu

    from raypipe.inference.pairs import Template
    from raypipe.inference.truncation import TextLengths
    from raypipe.models.tokenizer import load_tokenizer
    from raypipe.train.text_batches import TextBatcher

    tokenizer = load_tokenizer(place)
    template = Template.of(tokenizer, pair=False)
    rng = np.random.default_rng(1)
    room = LENGTH - template.n_special
    texts = rng.integers(1000, len(tokenizer), (QUERIES * DOCS, 2, room))
    gpu.DOCS = DOCS
    pairs = gpu.batcher_of(data, place, [(query, doc) for query, doc in texts], 1)
    return TextBatcher(
        pairs.groups,
        pairs.query_tokens,
        pairs.doc_tokens,
        template,
        TextLengths(query=LENGTH, doc=LENGTH),
        pairs.targets,
        1,
    )


if __name__ == "__main__":
    print(json.dumps(one_step(int(sys.argv[1]), Path(sys.argv[2]))))
