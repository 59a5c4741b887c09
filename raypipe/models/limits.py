"""What a backbone has no room for, found on a model without weights before work starts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from raypipe.config import ConfigError
from raypipe.models.freeze import freeze, position_tables

_ALMOST = 8
"""More than any family leaves of its table: RoBERTa's first two places hold no token."""


def check_length(config: Any, field: str, longest: int, where: str) -> None:
    """Refuse pairs that a table of absolute positions is too short for.

    Relative and rotary positions (DeBERTa-v3, ModernBERT) know no limit.

    Args:
        config: as `sequence_config` gives it.
        field: what decides the length, as the error names it.
        longest: tokens of the longest pair.
        where: the model, such as "model.backbone X".

    Raises:
        ConfigError: the table is shorter.
    """
    if longest <= getattr(config, "max_position_embeddings", 0) - _ALMOST:
        return  # importing the model's code takes seconds
    sizes = [
        table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
        for table in position_tables(_blank(config))
    ]
    if sizes and longest > min(sizes):
        raise ConfigError(
            f"{field}: pairs of up to {longest} tokens, special tokens included, but {where} has "
            f"positions for {min(sizes)}; lower it, or take a backbone that reads more"
        )


def check_layers(config: Any, field: str, layers: int) -> None:
    """Refuse to freeze layers that are not there.

    Raises:
        ConfigError: the model has fewer, or its layers share their weights (ALBERT).
    """
    if not layers:
        return
    try:
        freeze(_blank(config), embeddings=False, position_embeddings=False, layers=layers)
    except ConfigError as error:
        raise ConfigError(f"{field}: {error}") from None


def _blank(config: Any) -> nn.Module:
    from transformers import AutoModelForSequenceClassification

    with torch.device("meta"):
        model: nn.Module = AutoModelForSequenceClassification.from_config(config)
    return model
