"""Scoring and training all-MiniLM-L6-v2 on this CPU, beside sentence-transformers and beside
raypipe with one thing changed.

All ways have the same pairs of the built-in collection, cut at 256 tokens, and the same new head of
one output. sentence-transformers as shipped is fp32, 32 pairs per batch in scoring, dropout .1 in
training; at its best bf16, the best batch size, no dropout.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks import gpu
from benchmarks.dense import Measure
from benchmarks.mining import PACKAGE
from benchmarks.rows import Measured

from raypipe.inference.pairs import Template, length_batches
from raypipe.inference.scoring import PairScorer, autocast, ready_to_score
from raypipe.inference.transfer import to_tensors
from raypipe.inference.truncation import LongestFirst
from raypipe.losses.listwise import InfoNCE
from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.tokenizer import load_tokenizer
from raypipe.resources import default_precision
from raypipe.train.optimizer_step import OptimizerSteps
from raypipe.train.settings import TrainingSettings

LENGTH = 256
SCORED, TRAINED = 256, 32
"""Pairs of one call, and of one optimizer step."""
SIZES = (16, 32, 64, 128)
"""Pairs per batch that sentence-transformers may have at its best."""
Work = Callable[[], int]
"""Does something once; returns its pairs."""
Texts = list[tuple[str, str]]


def folder() -> Path:
    """The model's files."""
    found = Backbone(PACKAGE).folder
    assert found is not None
    return found


def texts() -> Texts:
    """Queries with their relevant documents: the longest, which reach `LENGTH` tokens mostly."""
    from raypipe.datasets.pydoc import PyDoc

    data = PyDoc("test", ["numpy"])
    docs = dict(data.docs())
    relevant = {query: doc for query, doc, _ in data.qrels()}
    pairs = [(text, docs[relevant[query]]) for query, text in data.queries()]
    return sorted(pairs, key=lambda pair: -len(pair[1]))[:SCORED]


def rows(measure: Measure) -> Iterator[Measured]:
    """Against sentence-transformers."""
    _quiet()
    pairs, precision = _shuffled(texts()), default_precision()
    theirs = f"sentence-transformers {version('sentence-transformers')}"
    own, size = scoring(pairs, precision), best_size(pairs)
    for way, work in (
        ("as shipped: fp32, batches of 32", their_scoring(pairs, torch.float32, 32)),
        (f"at its best: bf16, batches of {size}", their_scoring(pairs, torch.bfloat16, size)),
    ):
        rates = measure(own, work)
        yield Measured(f"scoring, {precision}", "pairs/s", rates[0], f"{theirs}, {way}", rates[1])
    with ExitStack() as opened:
        data = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        step = training(data, pairs, precision)
        for way, work in (
            ("as shipped: fp32, dropout .1", their_training(pairs, bf16=False, dropout=True)),
            ("as shipped, in bf16", their_training(pairs, bf16=True, dropout=True)),
            ("at its best: bf16, no dropout", their_training(pairs, bf16=True, dropout=False)),
        ):
            rates = measure(step, work)
            what = f"training, {precision}"
            yield Measured(what, "pairs/s", rates[0], f"{theirs}, {way}", rates[1])


def _quiet() -> None:
    """No report of a head that is new, amid the table."""
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def _shuffled(pairs: Texts) -> Texts:
    return [pairs[n] for n in np.random.default_rng(1).permutation(len(pairs))]


def tokens(pairs: Texts) -> tuple[Any, gpu.Pairs]:
    """The template of special tokens, and the ids of every pair, cut."""
    tokenizer = load_tokenizer(folder())
    template, cut = Template.of(tokenizer), LongestFirst(max_length=LENGTH)
    found = []
    for query, doc in pairs:
        ids = [
            np.array(tokenizer(t, add_special_tokens=False, verbose=False)["input_ids"])
            for t in (query, doc)
        ]
        q, d = cut.cut(len(ids[0]), len(ids[1]), template.n_special)
        found.append((ids[0][:q], ids[1][:d]))
    return template, found


def scoring(pairs: Texts, precision: str) -> Work:
    """As an actor scores a chunk."""
    template, ids = tokens(pairs)
    model = gpu.ours(folder()).load(folder(), 1, training=False, device="cpu")
    model = ready_to_score(model, "cpu", precision)
    cut = LongestFirst(max_length=LENGTH)
    score = PairScorer(model, template, cut, 2048, precision, "cpu")  # Context.batch_tokens
    return lambda: len(score(ids))


def their_scoring(pairs: Texts, dtype: torch.dtype, size: int) -> Work:
    """`CrossEncoder.predict`, which sorts by length itself."""
    from sentence_transformers import CrossEncoder as Theirs

    model = Theirs(
        str(folder()), num_labels=1, max_length=LENGTH, device="cpu", model_kwargs={"dtype": dtype}
    )
    return lambda: len(model.predict(pairs, batch_size=size, show_progress_bar=False))


def best_size(pairs: Texts) -> int:
    """The batch size with which sentence-transformers scores fastest in bf16."""
    bench = gpu.Bench("cpu", 1.0, len(pairs), 0)
    rates = {n: bench.rate(their_scoring(pairs, torch.bfloat16, n)) for n in SIZES}
    return max(rates, key=lambda n: rates[n])


def training(data: Path, pairs: Texts, precision: str) -> Work:
    """As a stage's worker trains: groups of 8 documents, without dropout.

    Args:
        data: an empty folder.
    """
    place = folder()
    model = gpu.ours(place).load(place, 1, training=True, device="cpu")
    _, ids = tokens(pairs[:TRAINED])
    alive = 4096  # Context.micro_batch_tokens
    groups = len(ids) // gpu.DOCS
    stage = TrainingSettings(loss=InfoNCE(), queries_per_step=groups, steps=100_000, validations=1)
    steps = OptimizerSteps(
        model,
        gpu.batcher_of(data, place, ids, alive),
        stage,
        groups,
        seed=1,
        precision=precision,
        alarms=None,
        say=print,
    )
    numbers = itertools.count()
    return lambda: int(steps.take(next(numbers))["pairs"])


def their_training(pairs: Texts, *, bf16: bool, dropout: bool) -> Work:
    """Its model and its loss, in steps as its trainer takes them: texts are read in each step,
    gradients clipped, AdamW."""
    from sentence_transformers import CrossEncoder as Theirs
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    none = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    model = Theirs(
        str(folder()),
        num_labels=1,
        max_length=LENGTH,
        device="cpu",
        config_kwargs={} if dropout else none,
    )
    model.train()
    loss = BinaryCrossEntropyLoss(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    queries, docs = map(list, zip(*pairs[:TRAINED], strict=True))
    labels = torch.tensor([float(n % gpu.DOCS == 0) for n in range(TRAINED)])

    def step() -> int:
        optimizer.zero_grad(set_to_none=True)
        with autocast("cpu", "bf16" if bf16 else "fp32"):
            value = loss([queries, docs], labels)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return TRAINED

    return step


# --- raypipe's own choices ------------------------------------------------------------------------


def choices(measure: Measure) -> Iterator[Measured]:
    """Training as raypipe does it, beside itself with one thing changed."""
    pairs, precision = _shuffled(texts()), default_precision()
    for name, work in (
        ("fp32", _step(pairs, "fp32")),
        ("sdpa attention", _step(pairs, precision, attention="sdpa")),
        ("attention dropout .1", _step(pairs, precision, dropout=0.1)),
        ("unsorted batches", _step(pairs, precision, presorted=False)),
    ):
        rates = measure(_step(pairs, precision), work)
        yield Measured(f"training, {precision}", "pairs/s", rates[0], name, rates[1])


def _step(
    texts: Texts,
    precision: str,
    *,
    attention: str | None = None,
    dropout: float = 0.0,
    presorted: bool = True,
) -> Work:
    """One optimizer step on 64 pairs."""
    template, pairs = tokens(texts[:64])
    config = CrossEncoder(backbone=PACKAGE, head="classifier", attention_dropout=dropout)
    model = config.load(folder(), 1, training=True, device="cpu")
    if attention:
        model.set_attn_implementation(attention)  # type: ignore[operator]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    lengths = [len(q) + len(d) + template.n_special for q, d in pairs]
    chosen = (
        list(length_batches(lengths, 2048)) if presorted else torch.arange(64).view(4, 16).numpy()
    )
    batches = [to_tensors(template.pad([pairs[i] for i in rows]), "cpu") for rows in chosen]

    def step() -> int:
        optimizer.zero_grad(set_to_none=True)
        for inputs in batches:
            with autocast("cpu", precision):
                loss = model(**inputs).logits.float().pow(2).mean()
            loss.backward()
        optimizer.step()
        return len(pairs)

    return step
