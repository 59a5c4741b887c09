"""A tiny bi-encoder and its batches: what tests of its training share."""

from __future__ import annotations

from pathlib import Path

from tiny_training import ROWS as ROWS

from raypipe.inference.pairs import Template
from raypipe.inference.token_reader import TokenReader
from raypipe.inference.truncation import TextLengths
from raypipe.losses.base import Loss
from raypipe.losses.combination import over_group_and_step
from raypipe.models.tokenizer import load_tokenizer
from raypipe.models.trained_bi_encoder import TrainedBiEncoder, TrainedEncoder
from raypipe.train.batches import Targets
from raypipe.train.group_reader import GroupReader
from raypipe.train.text_batches import TextBatcher

LENGTHS = TextLengths(query=8, doc=10)
TEMPERATURE = 0.05


def fits(loss: Loss) -> str:
    """What the targets of blocks are, as a stage's worker decides."""
    return (over_group_and_step(loss)[0] or loss).uses


def batcher_of(data: Path, backbone: Path, budget: int, uses: str = "labels") -> TextBatcher:
    return TextBatcher(
        GroupReader(data / "groups"),
        TokenReader(data / "queries"),
        TokenReader(data / "corpus"),
        Template.of(load_tokenizer(backbone), pair=False),
        LENGTHS,
        Targets(uses, "score", 1),
        budget,
        temperature=TEMPERATURE,
    )


def loaded(backbone: Path, dropout: float = 0.0) -> TrainedEncoder:
    config = TrainedBiEncoder(
        backbone=str(backbone), hidden_dropout=dropout, attention_dropout=dropout
    )
    return config.load(backbone, 1, training=True, device="cpu")
