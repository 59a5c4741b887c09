"""What tests share: scratch homes, one Ray cluster, a tiny model, a small learnable collection."""

from __future__ import annotations

import gc
import json
import os
import random
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from tiny_llm import CHAT_TEMPLATE, LLM_TEXT

# Libraries read these when they are imported, so they are set before any test module is.
_SCRATCH = tempfile.TemporaryDirectory(prefix="raypipe-tests-")
os.environ |= {
    "RAYPIPE_HOME": f"{_SCRATCH.name}/home",
    "IR_DATASETS_HOME": f"{_SCRATCH.name}/ir_datasets",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ADDRESS": "local",  # never join a cluster that happens to run here
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # two threads on a busy machine wait for each other 30 times longer
    "TOKENIZERS_PARALLELISM": "false",
}
os.environ.pop("MLFLOW_TRACKING_URI", None)

settings.register_profile("raypipe", deadline=None)  # no test depends on a machine's speed
settings.load_profile("raypipe")
JOBS = Path(__file__).resolve().parents[1] / "jobs"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SPLITS = {"train": range(0, 36), "validation": range(36, 48), "test": range(48, 60)}

RECIPE = """\
name: tiny
data:
  train: {{dataset: "beir:{data}", split: train}}
  validation: {{dataset: "beir:{data}", split: validation}}
  test: {{dataset: "beir:{data}", split: test}}
candidates: {{type: bm25, depth: 20}}
groups:
  negatives: {{type: random_window, count: 3, low: 1, high: 20}}
teacher: {{type: fusion, backbone: "{backbone}", max_length: 32}}
model: {{backbone: "{backbone}", hidden_dropout: 0.0}}
truncation: {{type: longest_first, max_length: 48}}
stages:
  contrastive:
    loss: {{type: infonce}}
    lr: 3.0e-3
    queries_per_step: 6
    steps: 12
    validations: 2
  distil:
    loss: {{type: margin_mse}}
    lr: 1.0e-3
    queries_per_step: 6
    steps: 4
    validations: 1
evaluation: {{depth: 10, validation_depth: 10, statistics: {{resamples: 200}}}}
reference: contrastive
precision: fp32
resources: {{cpus_per_worker: 1}}
sweep:
  space:
    order: [contrastive, contrastive -> distil]
storage: {folder}/storage
tracking: sqlite:///{folder}/mlflow.db
"""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m gpu` imports the tests of tests/gpu only: a GPU machine may lack Ray and the rest."""
    alone = config.getoption("markexpr") == "gpu" and collection_path.name.startswith("test_")
    return True if alone and collection_path.parent.name != "gpu" else None


def pytest_collection_finish() -> None:
    """Collect garbage seldom: with all libraries loaded, to look at every object takes .3 s."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Work in raypipe's home takes the rights of others from all new files of the process."""
    os.umask(0o022)
    yield
    os.umask(0o022)


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A local Ray as jobs start it, with the CPUs that this machine has."""
    import ray

    from raypipe.cluster import connect
    from raypipe.resources import Resources

    connect(Resources(), storage_is_local=True, shared=False)
    yield
    ray.shutdown()


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a file of jobs/ with arguments, in this process: a new one imports for ten seconds.

    Each file has a test that starts it as a user does.
    """

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        words = [str(JOBS / name), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(words[0], run_name="__main__")
        return subprocess.CompletedProcess(words, ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def beir_folder(tmp_path_factory) -> Path:
    """120 documents and 60 queries, one relevant document each; 36 / 12 / 12 in three splits.

    Query i names two things that only documents i (relevant) and 60 + i (a draft that names them
    more often) speak of, and two common words. Every relevant document says "verified", every
    draft "draft", so a tiny model can learn something in seconds. Query 59 has no known word.
    """
    rng = random.Random(7)
    names = _words(rng, 120)
    common = _words(rng, 40)
    docs, queries = {}, {}
    for i in range(60):
        things, shared = names[2 * i : 2 * i + 2], rng.sample(common, 6)
        docs[f"d{i:03d}"] = ["verified", *things, *shared]
        docs[f"d{60 + i:03d}"] = ["draft", *things, things[0], *rng.sample(common, 4)]
        queries[f"q{i:02d}"] = [*things, *rng.sample(shared, 2)]
    queries["q59"] = ["zzyzx", "qwfpgj"]
    root = tmp_path_factory.mktemp("data") / "tiny-beir"
    (root / "qrels").mkdir(parents=True)
    corpus = [{"_id": d, "title": "", "text": " ".join(w)} for d, w in sorted(docs.items())]
    _jsonl(root / "corpus.jsonl", corpus)
    _jsonl(root / "queries.jsonl", [{"_id": q, "text": " ".join(w)} for q, w in queries.items()])
    for split, numbers in SPLITS.items():
        lines = [f"q{i:02d}\td{i:03d}\t1" for i in numbers]
        text = "\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n"
        (root / "qrels" / f"{split}.tsv").write_text(text)
    return root


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory, beir_folder) -> Path:
    """A random two-layer BERT and a WordPiece tokenizer of the collection's words."""
    import torch
    from transformers import BertConfig, BertModel

    texts = [json.loads(line)["text"] for line in (beir_folder / "corpus.jsonl").open()]
    tokenizer = _tokenizer(texts)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory) -> Path:
    """A random two-layer Llama and a byte-level BPE tokenizer with a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([LLM_TEXT, f" {LLM_TEXT}"], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", chat_template=CHAT_TEMPLATE
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    with torch.random.fork_rng():
        torch.manual_seed(5)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def write_recipe(beir_folder, tiny_backbone) -> Callable[[Path], Path]:
    """Writes the small recipe into a folder, which also gets its storage and tracking."""

    def write(folder: Path) -> Path:
        path = folder / "tiny.yaml"
        path.write_text(RECIPE.format(data=beir_folder, backbone=tiny_backbone, folder=folder))
        return path

    return write


@pytest.fixture
def recipe(tmp_path, write_recipe) -> Path:
    """Two trials that share their first stage; storage and tracking below tmp_path."""
    return write_recipe(tmp_path)


@pytest.fixture(scope="session")
def mined(cluster, tmp_path_factory, write_recipe) -> Path:
    """The storage of the small recipe, mined once; not to be written to."""
    from raypipe.commands.mine import run
    from raypipe.recipe.experiment import Experiment
    from raypipe.recipe.reading import load

    folder = tmp_path_factory.mktemp("mined")
    run(load(Experiment, write_recipe(folder)), lambda line: None)
    return folder / "storage"


@pytest.fixture
def mined_recipe(recipe, mined) -> Path:
    """The small recipe with a storage of its own, in which only the training is missing."""
    shutil.copytree(mined, recipe.parent / "storage")
    return recipe


@dataclass(frozen=True)
class Swept:
    """A sweep of the small recipe."""

    recipe: Path
    result: Any
    said: list[str]
    storage: Path
    """As the sweep left it, whatever other tests do below the recipe."""


@pytest.fixture(scope="session")
def swept(mined, tmp_path_factory, write_recipe) -> Swept:
    """The small recipe's two trials, trained, evaluated and tracked once."""
    from raypipe.commands.compare import run
    from raypipe.recipe.experiment import Experiment
    from raypipe.recipe.reading import load

    recipe, said = write_recipe(tmp_path_factory.mktemp("swept")), []
    shutil.copytree(mined, recipe.parent / "storage")
    result = run(load(Experiment, recipe), said.append)
    shutil.copytree(recipe.parent / "storage", recipe.parent / "kept")
    return Swept(recipe, result, said, recipe.parent / "kept")


@pytest.fixture
def swept_recipe(recipe, swept) -> Path:
    """The small recipe with a storage of its own, in which its two stages stand."""
    shutil.copytree(swept.storage, recipe.parent / "storage")
    return recipe


@pytest.fixture
def unprobed(monkeypatch) -> None:
    """Plans say no time: to measure it, each starts a process that trains for three seconds."""
    from raypipe.commands import cost as estimate

    monkeypatch.setattr(estimate, "probe", lambda *_: None)


def _words(rng: random.Random, count: int) -> list[str]:
    """Distinct invented words, of three syllables so that no stemmer merges two."""
    syllables = [c + v for c in "bdfgklmnprtvz" for v in "aou"]
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(rng.sample(syllables, 3)) + rng.choice("kmpt")] = None
    return list(words)


def _jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _tokenizer(texts: list[str]):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=SPECIAL)
    inner.train_from_iterator(texts, trainer)
    inner.post_processor = processors.BertProcessing(
        ("[SEP]", inner.token_to_id("[SEP]")), ("[CLS]", inner.token_to_id("[CLS]"))
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=128,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
