"""Checks of a model's configuration before work starts: its length, its layers, its trained head.

No check reads weights: each one looks at config.json, or at the model that config.json describes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from raypipe.config import ConfigError, blamed_on
from raypipe.models.freeze import freeze, position_tables
from raypipe.names import counted

_MARGIN = 8
"""Positions. No family reserves as many of its table: RoBERTa, which reserves most, takes two."""


def check_length(
    config: Any,
    field: str,
    longest: int,
    where: str,
    *,
    what: Literal["pairs", "texts"] = "pairs",
    headless: bool = False,
) -> None:
    """Refuse inputs that are longer than the model's table of absolute positions.

    Relative and rotary positions (DeBERTa-v3, ModernBERT) know no limit.

    Args:
        config: as `sequence_config` or `encoder_config` gives it.
        field: the recipe's field that decides the length; the error names it.
        longest: tokens of the longest input.
        where: the model, such as "model.backbone X".
        what: the model reads.
        headless: the model has no head of transformers' own.

    Raises:
        ConfigError: the table is shorter than the longest input.
    """
    if longest <= getattr(config, "max_position_embeddings", 0) - _MARGIN:
        return  # importing the model's code takes seconds
    sizes = [
        table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
        for table in position_tables(without_weights(config, where, headless=headless))
    ]
    if sizes and longest > min(sizes):
        raise ConfigError(
            f"{field}: {what} of up to {longest} tokens, special tokens included, but {where} has "
            f"positions for {min(sizes)}; lower it, or take a backbone that reads more"
        )


def check_layers(
    config: Any, field: str, layers: int, where: str, *, headless: bool = False
) -> None:
    """Refuse to freeze layers that the model does not have.

    Args:
        config: as `sequence_config` gives it.
        field: the recipe's field that sets `layers`; the error names it.
        layers: how many first layers are to be frozen.
        where: the model, such as "model.backbone X".
        headless: the model has no head of transformers' own.

    Raises:
        ConfigError: the model has fewer layers, or its layers share their weights (ALBERT).
    """
    if not layers:
        return
    model = without_weights(config, where, headless=headless)
    with blamed_on(field):
        freeze(model, embeddings=False, position_embeddings=False, layers=layers)


def has_scorer(config: Mapping[str, Any]) -> bool:
    """Whether a config.json describes a sequence classifier with one label."""
    return _is_classifier(config) and labels(config) == 1


def _is_classifier(config: Mapping[str, Any]) -> bool:
    return _architecture(config).endswith("ForSequenceClassification")


def _architecture(config: Mapping[str, Any]) -> str:
    return str((config.get("architectures") or ["no architecture"])[0])


def check_one_output(config: Mapping[str, Any], where: str) -> None:
    """Refuse to train a head with several outputs; a model without a head gets a fresh one.

    Args:
        config: the content of the model's config.json.
        where: the model, such as "model.backbone X".

    Raises:
        ConfigError: the model is a sequence classifier with several labels.
    """
    if _is_classifier(config) and (found := labels(config)) != 1:
        raise ConfigError(
            f"{where}: expected a head with one output, found {_architecture(config)} with {found} "
            "labels, which is no relevance score; give a model with one output, or the pretrained "
            "model without its head (as a teacher, a model with several has the field `label`)"
        )


def labels(config: Mapping[str, Any]) -> int:
    """The outputs of a classifier's head by its config.json, in which 2 are not written down."""
    names, number = config.get("id2label"), config.get("num_labels")
    return len(names) if names else number if isinstance(number, int) else 2


def require_scorer(config: Mapping[str, Any], where: str, label: int | None = None) -> None:
    """Refuse a model whose head would be drawn at random, or whose score is not known.

    Args:
        config: the content of the model's config.json.
        where: the model, such as "teacher.backbone X".
        label: the head's output that means "relevant"; None for a head with one.

    Raises:
        ConfigError: the model is no sequence classifier, or its labels are not what `label` says.
    """
    model = _architecture(config)
    found, remedy = labels(config), "a fresh head would teach noise: give a trained cross-encoder"
    if _is_classifier(config):
        if (label is None and found == 1) or (label is not None and 1 < found > label):
            return
        model += f" with {counted(found, 'label')}"
        remedy = (
            "leave `label` out"
            if found == 1
            else f"set `label` to the number of the one that means relevant, 0 to {found - 1}"
        )
    expected = "one label" if label is None else f"labels of which number {label} is the score"
    raise ConfigError(
        f"{where}: expected a sequence classifier with {expected}, found {model}; {remedy}"
    )


def check_padding(config: Any, tokenizer: Any, where: str) -> None:
    """Refuse a language model's head that would not find the last token of padded pairs.

    Such a head reads the last token that is not config.json's `pad_token_id`.

    Args:
        config: as `sequence_config` gives it.
        where: the model, such as "model.backbone X".

    Raises:
        ConfigError: config.json and tokenizer name no padding token, or different ones.
    """
    if not reads_last_token(config):
        return
    configured, used = config.pad_token_id, tokenizer.pad_token_id
    if configured is None or configured != used:
        raise ConfigError(
            f"{where}: expected one padding token in config.json and tokenizer, since the head of "
            f"{type(config).__name__} reads the last token before the padding; found pad_token_id "
            f"{configured} in config.json and {used} ({tokenizer.pad_token}) in the tokenizer; "
            "write the tokenizer's into config.json, and give the tokenizer one if it has none"
        )
    ends = tokenizer("a", "b")["input_ids"]
    if ends and ends[-1] == used:
        raise ConfigError(
            f"{where}: the tokenizer ends pairs with {tokenizer.pad_token}, which is the padding "
            "token too, so that the head would read the token before it; give the model a padding "
            "token of its own"
        )


def reads_last_token(config: Any) -> bool:
    """Whether a classifier of this family scores by the last token: all language models do."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS,
    )

    return config.model_type not in ENCODERS


def without_weights(config: Any, where: str, *, headless: bool = False) -> nn.Module:
    """The model that a configuration describes, of shapes alone.

    Args:
        where: the model, such as "model.backbone X".
        headless: the model has no head of transformers' own.

    Raises:
        ConfigError: there is no such model.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification

    kind = AutoModel if headless else AutoModelForSequenceClassification
    try:
        with torch.device("meta"):
            model: nn.Module = kind.from_config(config)
    except Exception as error:  # models raise what they like
        words = " ".join((str(error) or "no more words").split())
        raise ConfigError(
            f"{where}: transformers cannot build the model of its config.json "
            f"({type(error).__name__}: {words}); correct the file, or give another model"
        ) from None
    return model
