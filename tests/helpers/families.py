"""Every backbone family, small and random: real model and tokenizer classes, built once.

The models are written as pretrained ones come: without a head. The tokenizers are trained on this
module's own texts, with the special tokens, ids and post-processor of the published ones.
"""

from __future__ import annotations

import atexit
import copy
import functools
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from raypipe.inference.pairs import Template
from raypipe.inference.token_reader import TokenReader, token_table
from raypipe.inference.truncation import LongestFirst
from raypipe.losses.base import Loss
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.tokenizer import load_tokenizer
from raypipe.records import GROUPS
from raypipe.train.batches import Batcher, Targets
from raypipe.train.group_reader import GroupReader
from raypipe.train.loop import train
from raypipe.train.selection import TrainingOutcome
from raypipe.train.settings import TrainingSettings

QUERIES, DOCS, PER_GROUP = 6, 24, 4
CUT = LongestFirst(max_length=24)
"""Shorter than query and document together, so that pairs are cut in training too."""


def _texts() -> tuple[list[str], list[str]]:
    """(queries, documents): invented words, in which query i shares two with document i."""
    rng = random.Random(5)
    words = [a + b for a in ("ba", "du", "ki", "lo", "zu", "pra") for b in ("ma", "ne", "ri", "to")]
    queries = [rng.sample(words, 3 + i) for i in range(QUERIES)]
    docs = [rng.choices(words, k=6 + i % 9) for i in range(DOCS)]
    docs[:QUERIES] = [["Yes,", *query[:2], *doc] for query, doc in zip(queries, docs, strict=False)]
    return [" ".join(q) + "?" for q in queries], [" ".join(d) + "." for d in docs]


QUERY_TEXTS, DOC_TEXTS = _texts()


# Tokenizers


def _wordpiece() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import BertTokenizer

    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=special, show_progress=False)
    inner.train_from_iterator(QUERY_TEXTS + DOC_TEXTS, trainer)
    return BertTokenizer(vocab=inner.get_vocab(), model_max_length=512)


def _byte_level(special: list[str], normalizer: Any = None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    if normalizer is not None:
        inner.normalizer = normalizer
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(QUERY_TEXTS + DOC_TEXTS, trainer)
    return inner


def _roberta() -> Any:
    import json

    from transformers import RobertaTokenizer

    model = json.loads(_byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]).to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, model_max_length=512)


def _unigram() -> Any:
    """DeBERTa-v3's: SentencePiece pieces with the space in front, [PAD] [CLS] [SEP] [UNK] first."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import DebertaV2Tokenizer

    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=special, unk_token="[UNK]", show_progress=False
    )
    inner.train_from_iterator(QUERY_TEXTS + DOC_TEXTS, trainer)
    pieces = [tuple(piece) for piece in json.loads(inner.to_str())["model"]["vocab"]]
    return DebertaV2Tokenizer(vocab=pieces, unk_id=3, model_max_length=512)


def _modernbert() -> Any:
    from tokenizers import normalizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = _byte_level(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"], normalizers.NFC())
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(t, inner.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
    )


# Models

_Fields = dict[str, Any]
_SMALL: _Fields = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 130,
}
_KINDS: dict[str, tuple[Callable[[], Any], str, _Fields]] = {
    "bert": (_wordpiece, "BertConfig", {}),
    "roberta": (_roberta, "RobertaConfig", {"type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "electra": (_wordpiece, "ElectraConfig", {"embedding_size": 16}),
    "deberta_v3": (
        _unigram,
        "DebertaV2Config",
        {
            "relative_attention": True,
            "position_buckets": 8,
            "max_relative_positions": -1,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": "p2c|c2p",
            "position_biased_input": False,
            "type_vocab_size": 0,
            "layer_norm_eps": 1e-7,
        },
    ),
    "modernbert": (
        _modernbert,
        "ModernBertConfig",
        {"local_attention": 8, "global_attn_every_n_layers": 2, "classifier_pooling": "mean"},
    ),
    "minilm": (_wordpiece, "BertConfig", {"hidden_size": 24, "num_hidden_layers": 3}),
}
FAMILIES = list(_KINDS)


@functools.cache
def folder_of(family: str) -> Path:
    """A directory as the hub has it: config, safetensors without a head, tokenizer."""
    import transformers

    make, config_class, fields = _KINDS[family]
    tokenizer = make()
    ids = {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in ("pad", "cls", "sep")}
    ends = {"bos_token_id": ids["cls_token_id"], "eos_token_id": ids["sep_token_id"]}
    config = getattr(transformers, config_class)(
        vocab_size=len(tokenizer), **{**_SMALL, **fields, **ids, **ends}
    )
    folder = _scratch() / family
    with torch.random.fork_rng():
        torch.manual_seed(3)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@functools.cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="raypipe-families-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _fresh(family: str) -> nn.Module:
    model = CrossEncoder(backbone=family, hidden_dropout=0.0).load(
        folder_of(family), 1, training=True, device="cpu"
    )
    spread(model)
    return model


def model_of(family: str) -> nn.Module:
    """A model of its own with a fresh head, ready to train without dropout."""
    return copy.deepcopy(_fresh(family))


def spread(model: nn.Module, factor: float = 4) -> None:
    """Larger weights: as drawn, a small model gives all pairs nearly one score."""
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 2:
                value.mul_(factor)


# Training data


@functools.cache
def store_of(family: str) -> Path:
    """Token stores `queries` and `docs` as the jobs write them, and `groups`: one per query."""
    folder = _scratch() / f"{family}-data"
    tokenizer = load_tokenizer(folder_of(family))
    for name, texts in (("queries", QUERY_TEXTS), ("docs", DOC_TEXTS)):
        rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
        write_arrow(folder / name, token_table(rows, len(tokenizer)))
    rng = random.Random(2)
    rows = []
    for i in range(QUERIES):
        others = rng.sample(range(QUERIES, DOCS), PER_GROUP - 1)
        rows.append(
            {
                "query_index": i,
                "doc_indices": [i, *others],
                "relevance": [1] + [0] * len(others),
                "teacher_values": [float(PER_GROUP - place) for place in range(PER_GROUP)],
                "ranks": range(1, PER_GROUP + 1),
            }
        )
    write_arrow(folder / "groups", pa.Table.from_pylist(rows, schema=GROUPS))
    return folder


def write_arrow(folder: Path, table: pa.Table) -> None:
    """One shard, as a store holds it."""
    folder.mkdir(parents=True)
    with pa.ipc.new_file(str(folder / "part-00000.arrow"), table.schema) as writer:
        writer.write_table(table.combine_chunks())


def batcher_of(family: str, uses: str, budget: int = 100_000) -> Batcher:
    store = store_of(family)
    return Batcher(
        GroupReader(store / "groups"),
        TokenReader(store / "queries"),
        TokenReader(store / "docs"),
        Template.of(load_tokenizer(folder_of(family))),
        CUT,
        Targets(uses, "score", 1),
        budget,
    )


def fit(model: nn.Module, family: str, loss: Loss, steps: int, lr: float) -> TrainingOutcome:
    """Train on the bare loop; every step takes all groups, so all steps have the same batch."""
    stage = TrainingSettings(
        loss=loss, lr=lr, warmup=0.0, queries_per_step=QUERIES, steps=steps, validations=1
    )
    return train(
        model,
        batcher_of(family, loss.uses),
        stage,
        QUERIES,
        seed=1,
        precision="fp32",
        selection="nDCG@10",
        validate=lambda model: {"nDCG@10": 0.0},
        report=lambda row: None,
    )
