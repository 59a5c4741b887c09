"""A backbone that is on this machine: its tokenizer on real texts, and an untrained pooler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.commands.probe import folder_of
from raypipe.config import ConfigError
from raypipe.inference.truncation import Reading, TextLengths
from raypipe.models.any_model import AnyModel
from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.pooler import untrained_pooler


def token_line(
    source: str, truncation: Reading, queries: Sequence[str], docs: Sequence[str]
) -> str:
    """Lengths in tokens, the share of pairs that are cut, the share of unknown tokens.

    Raises:
        ConfigError: the tokenizer fails on one of the texts.
    """
    backbone = Backbone(source)
    folder = folder_of(backbone)
    if folder is None:
        return f"tokens of {backbone.name}: it is not on this machine yet"
    try:
        return f"tokens of {backbone.name}: {_figures(folder, truncation, queries, docs)}"
    except Exception as error:  # tokenizers raise what they like
        words = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"model.backbone {source}: its tokenizer fails on the texts of this data set "
            f"({words}); save the tokenizer again, or take another backbone"
        ) from None


def pooler_line(model: AnyModel) -> str | None:
    """That the head reads through an untrained pooler; None if not, or if the model is not here."""
    if not isinstance(model, CrossEncoder) or model.resolved_head != "classifier":
        return None
    folder = folder_of(Backbone(model.backbone))
    if folder is None:
        return None
    sentence = untrained_pooler(model.load(Path(folder), 0, training=False, device="cpu"))
    return None if sentence is None else f"model.backbone {model.backbone}: {sentence}"


def _figures(folder: str, truncation: Reading, queries: Sequence[str], docs: Sequence[str]) -> str:
    from raypipe.inference.tokens import load_tokenizer

    tokenizer = load_tokenizer(Path(folder))
    ids_of_queries, ids_of_docs = (
        tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        for texts in (queries, docs)
    )
    special = tokenizer.num_special_tokens_to_add(pair=not isinstance(truncation, TextLengths))
    pairs = [(len(ids_of_queries[n % len(queries)]), len(doc)) for n, doc in enumerate(ids_of_docs)]
    cut = sum(_is_cut(truncation, query, doc, special) for query, doc in pairs)
    every = np.concatenate([np.asarray(ids, np.int64) for ids in [*ids_of_queries, *ids_of_docs]])
    unknown = np.mean(every == tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0
    return (
        f"queries {_lengths(ids_of_queries)}, documents {_lengths(ids_of_docs)}; "
        f"{cut / max(len(pairs), 1):.0%} of {len(pairs):,} pairs are cut ({truncation.reads}); "
        f"{unknown:.1%} of the tokens are unknown to it"
    )


def _lengths(ids: Sequence[Any]) -> str:
    """Such as `12 (95 % up to 20)`."""
    middle, high = np.percentile([len(row) for row in ids] or [0], [50, 95])
    return f"{middle:.0f} (95 % up to {high:.0f})"


def _is_cut(truncation: Reading, query: int, doc: int, special: int) -> bool:
    passages = truncation.passages(query, doc, special)
    return passages[0][0] < query or max(stop for *_, stop in passages) < doc
