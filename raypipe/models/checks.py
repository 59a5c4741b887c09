"""Checks of a model's configuration before work starts: its length, its layers, its trained head.

No check reads weights: each one looks at config.json, or at the model that config.json describes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from raypipe.config import ConfigError
from raypipe.models.freeze import freeze, position_tables

_MARGIN = 8
"""Positions. No family reserves as many of its table: RoBERTa, which reserves most, takes two."""


def check_length(
    config: Any, field: str, longest: int, where: str, *, what: Literal["pairs", "texts"] = "pairs"
) -> None:
    """Refuse inputs that are longer than the model's table of absolute positions.

    Relative and rotary positions (DeBERTa-v3, ModernBERT) know no limit.

    Args:
        config: as `sequence_config` or `encoder_config` gives it.
        field: the recipe's field that decides the length; the error names it.
        longest: tokens of the longest input.
        where: the model, such as "model.backbone X".
        what: the model reads; texts go through a model without a head.

    Raises:
        ConfigError: the table is shorter than the longest input.
    """
    if longest <= getattr(config, "max_position_embeddings", 0) - _MARGIN:
        return  # importing the model's code takes seconds
    sizes = [
        table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
        for table in position_tables(_without_weights(config, headless=what == "texts"))
    ]
    if sizes and longest > min(sizes):
        raise ConfigError(
            f"{field}: {what} of up to {longest} tokens, special tokens included, but {where} has "
            f"positions for {min(sizes)}; lower it, or take a backbone that reads more"
        )


def check_layers(config: Any, field: str, layers: int) -> None:
    """Refuse to freeze layers that the model does not have.

    Args:
        config: as `sequence_config` gives it.
        field: the recipe's field that sets `layers`; the error names it.
        layers: how many first layers are to be frozen.

    Raises:
        ConfigError: the model has fewer layers, or its layers share their weights (ALBERT).
    """
    if not layers:
        return
    model = _without_weights(config)
    try:
        freeze(model, embeddings=False, position_embeddings=False, layers=layers)
    except ConfigError as error:
        raise ConfigError(f"{field}: {error}") from None


def has_scorer(config: Mapping[str, Any]) -> bool:
    """Whether a config.json describes a sequence classifier with one label."""
    architectures = config.get("architectures") or [""]
    labels = config.get("id2label") or {}
    return str(architectures[0]).endswith("ForSequenceClassification") and len(labels) == 1


def require_scorer(config: Mapping[str, Any], where: str) -> None:
    """Refuse a model whose head would be drawn at random.

    Args:
        config: the content of the model's config.json.
        where: the model, such as "teacher.backbone X".

    Raises:
        ConfigError: the model is no sequence classifier with one label.
    """
    if has_scorer(config):
        return
    model = str((config.get("architectures") or ["no architecture"])[0])
    if model.endswith("ForSequenceClassification"):
        model += f" with {len(config.get('id2label') or ()) or 2} labels"  # 2 are not written down
    raise ConfigError(
        f"{where}: expected a sequence classifier with one label, found {model}; a fresh head "
        "would teach noise: give a trained cross-encoder"
    )


def _without_weights(config: Any, *, headless: bool = False) -> nn.Module:
    from transformers import AutoModel, AutoModelForSequenceClassification

    kind = AutoModel if headless else AutoModelForSequenceClassification
    with torch.device("meta"):
        model: nn.Module = kind.from_config(config)
    return model
