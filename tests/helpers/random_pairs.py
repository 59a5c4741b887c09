"""A random model of any shape and random groups, to measure and compare without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tiny_training import token_folder

from raypipe.inference.pairs import Template
from raypipe.inference.token_reader import TokenReader
from raypipe.inference.truncation import LongestFirst, Pair
from raypipe.models.tokenizer import load_tokenizer
from raypipe.records import GROUPS
from raypipe.train.batches import Batcher, Targets
from raypipe.train.group_reader import GroupReader

QUERY, DOCS = 8, 8
"""Tokens of a query, documents of a group."""


def random_pairs(vocabulary: int, count: int, longest: int) -> list[Pair]:
    """Queries and documents of many lengths, the longest pair of `longest` tokens."""
    rng, most = np.random.default_rng(3), longest - QUERY - 3
    lengths = [most, *rng.integers(1, most, count - 1)]
    return [
        (rng.integers(5, vocabulary, QUERY), rng.integers(5, vocabulary, int(n))) for n in lengths
    ]


def random_backbone(folder: Path, tokenizer_of: Path, family: str, **shape: Any) -> Path:
    """Random weights of a family, such as bert or modernbert, with another folder's tokenizer."""
    from transformers import CONFIG_MAPPING, AutoModel

    tokenizer = load_tokenizer(tokenizer_of)
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    known = special if family == "modernbert" else {"pad_token_id": tokenizer.pad_token_id}
    config = CONFIG_MAPPING[family](vocab_size=len(tokenizer), **known, **shape)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def random_batcher(folder: Path, backbone: Path, longest: int, groups: int, budget: int) -> Batcher:
    """Groups of `DOCS` documents, all pairs of `longest` tokens."""
    tokenizer, rng = load_tokenizer(backbone), np.random.default_rng(5)
    texts = {"queries": QUERY, "corpus": longest - QUERY - 3}
    for name, length in texts.items():
        rows = rng.integers(5, len(tokenizer), (groups * (DOCS if name == "corpus" else 1), length))
        token_folder(folder / name, rows.tolist(), len(tokenizer))
    listed = [
        {
            "query_index": number,
            "doc_indices": range(number * DOCS, (number + 1) * DOCS),
            "relevance": [1] + [0] * (DOCS - 1),
            "teacher_values": None,
            "ranks": range(1, DOCS + 1),
        }
        for number in range(groups)
    ]
    table = pa.Table.from_pylist(listed, schema=GROUPS)
    (folder / "groups").mkdir()
    with pa.ipc.new_file(str(folder / "groups" / "part-00000.arrow"), table.schema) as writer:
        writer.write_table(table)
    return Batcher(
        GroupReader(folder / "groups"),
        TokenReader(folder / "queries"),
        TokenReader(folder / "corpus"),
        Template.of(tokenizer),
        LongestFirst(max_length=longest),
        Targets("labels", "score", 1),
        budget,
    )
