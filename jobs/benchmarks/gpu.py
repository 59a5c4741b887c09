"""One GPU: pairs per second and share of the measured matmul peak, beside sentence-transformers.

Run by `python jobs/benchmark.py --gpu`. Weights and texts are random, because speed does not depend
on them: nothing is downloaded, and Ray is not needed. Lengths are those of scifact's pairs, 249
tokens on average, at most 512. sentence-transformers runs as shipped (fp32, its own batch size and
dropout) and at its best (bf16, 256 pairs per batch, no dropout).
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raypipe.inference.out_of_memory import free_cached
from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer, ready_to_score
from raypipe.inference.token_reader import TokenReader, token_table
from raypipe.inference.truncation import LongestFirst
from raypipe.losses.listwise import InfoNCE
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.tokenizer import load_tokenizer
from raypipe.resources import GPU_TOKENS
from raypipe.train.batches import Batcher, Targets
from raypipe.train.group_reader import GroupReader
from raypipe.train.optimizer_step import OptimizerSteps
from raypipe.train.settings import TrainingSettings
from raypipe.train.token_budget import GpuMemory, measured_budget

Array = np.ndarray[Any, Any]
Pairs = list[tuple[Array, Array]]
"""Token ids of query and document."""
LENGTH, QUERY = 512, 20
QUERIES, DOCS = 32, 8
"""Of an optimizer step: 256 pairs."""
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPES: Mapping[str, tuple[str, dict[str, int]]] = {
    "MiniLM-L6": ("bert", {**MINILM, "intermediate_size": 1536}),
    "BERT-base": ("bert", {}),
    "ModernBERT-base": ("modernbert", {}),
}


@dataclass(frozen=True)
class Bench:
    """How much is measured, and where."""

    device: str
    seconds: float
    pairs: int
    """In one call that scores."""
    steps: int
    """Before training is timed."""
    vocabulary: int = 30_522
    shape: dict[str, int] = field(default_factory=dict)
    """Instead of every model's own."""

    @classmethod
    def of(cls, *, rehearse: bool, seconds: float) -> Bench:
        """On the GPU; or small models on this CPU, whose figures say nothing.

        Raises:
            SystemExit: no GPU.
        """
        if rehearse:
            return cls("cpu", 0.1, 48, 1, 300, {**SMALL, "intermediate_size": 64})
        if not torch.cuda.is_available():
            raise SystemExit(
                "not run: expected a CUDA device, and torch finds none; --rehearse runs the same "
                "lines with small models on this CPU"
            )
        return cls("cuda", seconds, 4096, 5)

    def rate(self, work: Callable[[], int]) -> float:
        """Pairs per second of repeated calls, after one that warms up."""
        work()
        self.wait()
        started, pairs = time.perf_counter(), 0
        while (passed := time.perf_counter() - started) < self.seconds or not pairs:
            pairs += work()
            self.wait()
        return pairs / passed if passed else 0.0

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def run(*, rehearse: bool, seconds: float, out: str | None) -> None:
    """Print a Markdown table and the same as JSON.

    Args:
        out: a file for the JSON; None prints it only.
    """
    from transformers.utils.logging import disable_progress_bar

    bench = Bench.of(rehearse=rehearse, seconds=seconds)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAYPIPE_HOME"] = f"{folder}/home"  # budgets are measured here, not remembered
        peak = matmul_peak(bench)
        facts = {**machine(bench), "matmul_tflops": round(peak / 1e12, 3)}
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
        print("\n| model | work | way | pairs/s | share of peak |\n|---|---|---|---|---|")
        rows = []
        for name, (family, shape) in SHAPES.items():
            place = random_model(Path(folder, name), family, bench.shape or shape, bench)
            for row in rows_of(place, bench):
                row = {"model": name, **row}
                row["peak_share"] = round((row["pairs_per_s"] or 0) * row.pop("flops") / peak, 4)
                print(_line(row), flush=True)
                rows.append(row)
    text = json.dumps({"machine": facts, "rows": rows})
    print(f"\n{text}")
    if out is not None:
        Path(out).write_text(text + "\n")


def _line(row: Mapping[str, Any]) -> str:
    if row["pairs_per_s"] is None:
        return f"| {row['model']} | {row['work']} | {row['way']} | {row['why']} | |"
    figures = f"{row['pairs_per_s']:,.0f} | {row['peak_share']:.1%}"
    return f"| {row['model']} | {row['work']} | {row['way']} | {figures} |"


def machine(bench: Bench) -> dict[str, Any]:
    """Card and versions."""
    import transformers

    gpu = bench.device == "cuda"
    facts = {
        "card": torch.cuda.get_device_name() if gpu else "none (a rehearsal on CPU)",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    try:
        import sentence_transformers
    except ImportError:
        return facts
    return {**facts, "sentence_transformers": sentence_transformers.__version__}


def matmul_peak(bench: Bench) -> float:
    """Measured FLOP/s of large products in bf16."""
    size = 8192 if bench.device == "cuda" else 256
    one = torch.randn(size, size, device=bench.device, dtype=torch.bfloat16)
    two, times = one.t().contiguous(), []
    for _ in range(20):
        bench.wait()
        started = time.perf_counter()
        for _ in range(5):
            one @ two
        bench.wait()
        times.append((time.perf_counter() - started) / 5)
    return 2 * size**3 / min(times)


# --- a model and its pairs -----------------------------------------------------------------------


def random_model(folder: Path, family: str, shape: dict[str, int], bench: Bench) -> Path:
    """A sequence classifier with random weights, and a tokenizer with one token per word."""
    from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification

    special = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3}
    if family == "modernbert":
        special |= {"bos_token_id": 2, "eos_token_id": 3}
        shape = {**shape, "max_position_embeddings": LENGTH}
    config = CONFIG_MAPPING[family](vocab_size=bench.vocabulary, num_labels=1, **special, **shape)
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer_of_words(bench.vocabulary, typed=family == "bert").save_pretrained(folder)
    return folder


def tokenizer_of_words(vocabulary: int, *, typed: bool) -> Any:
    """Reads "w7 w8" as 7, 8."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {**{word: n for n, word in enumerate(SPECIAL)}}
    words |= {f"w{n}": n for n in range(len(SPECIAL), vocabulary)}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ["input_ids", *(["token_type_ids"] if typed else []), "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=LENGTH,
        model_input_names=names,
        **{f"{word[1:-1].lower()}_token": word for word in SPECIAL},
    )


def random_ids(bench: Bench, count: int) -> Pairs:
    """Token ids of queries and documents, of scifact's lengths."""
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.normal(226, 80, count), 20, LENGTH - QUERY - 3).astype(int)
    if bench.device == "cpu":
        lengths = lengths // 8 + 1
    low = len(SPECIAL)
    return [
        (rng.integers(low, bench.vocabulary, QUERY), rng.integers(low, bench.vocabulary, n))
        for n in lengths
    ]


def flops(folder: Path, lengths: Array) -> float:
    """Of one pair's forward pass, on average: products of weights, and of attention.

    Sliding layers of ModernBERT look at `local_attention` tokens only.
    """
    from transformers import AutoConfig, AutoModel

    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    linear = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "pooler" not in name
    )
    config = model.config
    kinds = getattr(config, "layer_types", None) or ["full"] * config.num_hidden_layers
    window = getattr(config, "local_attention", LENGTH)
    seen = sum(np.minimum(lengths, window) if "sliding" in kind else lengths for kind in kinds)
    return float(np.mean(2.0 * linear * lengths + 4.0 * config.hidden_size * lengths * seen))


# --- what is measured ----------------------------------------------------------------------------


def rows_of(folder: Path, bench: Bench) -> Iterator[dict[str, Any]]:
    """Scoring and training of one model, in every way; `flops` are of a pair."""
    ids = random_ids(bench, bench.pairs)
    once = flops(folder, np.array([len(query) + len(doc) + 3 for query, doc in ids]))
    given, tokens = (folder, ids, bench), card_budget(folder, bench)
    ways: list[tuple[str, str, Callable[[], float]]] = [
        ("scoring", "raypipe", partial(scoring, *given)),
        ("scoring", "theirs, as shipped", partial(their_scoring, *given, best=False)),
        ("scoring", "theirs, at its best", partial(their_scoring, *given, best=True)),
        ("training", f"raypipe, {tokens:,} tokens", partial(training, *given, tokens)),
        ("training", f"raypipe, {GPU_TOKENS:,} tokens", partial(training, *given, GPU_TOKENS)),
        ("training", "theirs, as shipped", partial(their_training, *given, best=False)),
        ("training", "theirs, at its best", partial(their_training, *given, best=True)),
    ]
    for work, way, measure in ways:
        row = {"work": work, "way": way, "flops": once * (3 if work == "training" else 1)}
        try:
            yield {**row, "pairs_per_s": round(measure(), 1)}
        except ImportError as error:
            yield {**row, "pairs_per_s": None, "why": f"not run: {error.name} is not installed"}
        free_cached()


def ours(folder: Path) -> CrossEncoder:
    """Without dropout, as raypipe trains a model that has none."""
    return CrossEncoder(backbone=str(folder), head="classifier", hidden_dropout=0.0)


def scoring(folder: Path, ids: Pairs, bench: Bench) -> float:
    """Pairs per second in bf16."""
    model = ours(folder).load(folder, 1, training=False, device=bench.device)
    model = ready_to_score(model, bench.device, "bf16")
    template, cut = Template.of(load_tokenizer(folder)), LongestFirst(max_length=LENGTH)
    score = PairScorer(model, template, cut, GPU_TOKENS, "bf16", bench.device)
    return bench.rate(lambda: len(score(ids)))


def card_budget(folder: Path, bench: Bench) -> int:
    """Tokens that a stage has alive on this card: what its memory holds."""
    if bench.device == "cpu":
        return 1024
    model = ours(folder).load(folder, 1, training=True, device=bench.device)
    meter = GpuMemory(next(model.parameters()).device)
    return measured_budget(model, LENGTH, "bf16", meter, 1.0)


def training(folder: Path, ids: Pairs, bench: Bench, tokens: int) -> float:
    """Pairs per second of optimizer steps in bf16, without dropout, with `tokens` alive."""
    model = ours(folder).load(folder, 1, training=True, device=bench.device)
    count = len(ids) // DOCS
    stage = TrainingSettings(
        loss=InfoNCE(), queries_per_step=min(QUERIES, count), steps=100_000, validations=1
    )
    with tempfile.TemporaryDirectory() as data:
        steps = OptimizerSteps(
            model,
            batcher_of(Path(data), folder, ids, tokens),
            stage,
            count,
            seed=1,
            precision="bf16",
            alarms=None,
            say=print,
        )
        for number in range(bench.steps):
            steps.take(number)
        numbers = itertools.count(bench.steps)
        return bench.rate(lambda: int(steps.take(next(numbers))["pairs"]))


def batcher_of(data: Path, folder: Path, ids: Pairs, tokens: int) -> Batcher:
    """The pairs as groups of `DOCS` documents, read as a stage reads its own."""
    import pyarrow as pa

    from raypipe.records import GROUPS

    tokenizer = load_tokenizer(folder)
    groups = len(ids) // DOCS
    listed = [
        {
            "query_index": n,
            "doc_indices": range(n * DOCS, (n + 1) * DOCS),
            "relevance": [1] + [0] * (DOCS - 1),
            "teacher_values": None,
            "ranks": range(1, DOCS + 1),
        }
        for n in range(groups)
    ]
    tables = {
        "queries": token_table([ids[n * DOCS][0].tolist() for n in range(groups)], len(tokenizer)),
        "corpus": token_table([doc.tolist() for _, doc in ids], len(tokenizer)),
        "groups": pa.Table.from_pylist(listed, schema=GROUPS),
    }
    for name, table in tables.items():
        (data / name).mkdir()
        with pa.ipc.new_file(str(data / name / "part-00000.arrow"), table.schema) as writer:
            writer.write_table(table)
    return Batcher(
        GroupReader(data / "groups"),
        TokenReader(data / "queries"),
        TokenReader(data / "corpus"),
        Template.of(tokenizer),
        LongestFirst(max_length=LENGTH),
        Targets("labels", "score", 1),
        tokens,
    )


# --- sentence-transformers -----------------------------------------------------------------------


def _texts(ids: Pairs) -> list[tuple[str, str]]:
    return [(_text(query), _text(doc)) for query, doc in ids]


def _text(ids: Array) -> str:
    return " ".join(f"w{n}" for n in ids)


def their_scoring(folder: Path, ids: Pairs, bench: Bench, *, best: bool) -> float:
    """Pairs per second of `CrossEncoder.predict`, which sorts by length itself."""
    from sentence_transformers import CrossEncoder as Theirs

    model = Theirs(
        str(folder),
        num_labels=1,
        max_length=LENGTH,
        device=bench.device,
        model_kwargs={"dtype": torch.bfloat16 if best else torch.float32},
    )
    texts = _texts(ids[: bench.pairs // 4])
    size = 256 if best else 32
    return bench.rate(lambda: len(model.predict(texts, batch_size=size, show_progress_bar=False)))


def their_training(folder: Path, ids: Pairs, bench: Bench, *, best: bool) -> float:
    """Pairs per second of `CrossEncoderTrainer`, 256 pairs per step, after the first steps."""
    import datasets
    from sentence_transformers import CrossEncoder as Theirs
    from sentence_transformers.cross_encoder import (
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    from transformers import PrinterCallback, TrainerCallback

    dropout = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    model = Theirs(
        str(folder),
        num_labels=1,
        max_length=LENGTH,
        device=bench.device,
        config_kwargs=dropout if best and "Modern" not in folder.name else {},
    )
    size, texts = min(QUERIES * DOCS, len(ids)), _texts(ids)
    rows = {
        "query": [query for query, _ in texts],
        "document": [doc for _, doc in texts],
        "label": [float(n % DOCS == 0) for n in range(len(texts))],
    }
    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            bench.wait()
            times.append(time.perf_counter())
            timed = times[bench.steps - 1 :]
            if len(timed) > 1 and timed[-1] - timed[0] >= bench.seconds:
                control.should_training_stop = True

    with tempfile.TemporaryDirectory() as out:
        arguments = CrossEncoderTrainingArguments(
            output_dir=out,
            per_device_train_batch_size=size,
            max_steps=100_000,
            bf16=best,
            use_cpu=bench.device == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = CrossEncoderTrainer(
            model=model,
            args=arguments,
            train_dataset=datasets.Dataset.from_dict(rows),
            loss=BinaryCrossEntropyLoss(model),
            callbacks=[Clock()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    timed = times[bench.steps - 1 :]
    return size * (len(timed) - 1) / (timed[-1] - timed[0])
