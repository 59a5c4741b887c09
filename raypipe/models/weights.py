"""Reading a folder's classifier, with an error where its architecture or its weights do not fit.

transformers draws missing weights at random and logs a line; here missing weights are an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raypipe.config import ConfigError

_LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")
_SHOWN = 6


def sequence_config(source: Path | str, where: str, revision: str | None = None) -> Any:
    """The transformers configuration of an encoder with one output.

    Args:
        source: a directory or a hub name.
        where: the model as the error names it, such as "model.backbone X".
        revision: the commit of a hub model.

    Raises:
        ConfigError: an unknown architecture, an encoder-decoder (T5), or a causal language model.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS,
    )
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS,
    )

    try:
        config = AutoConfig.from_pretrained(
            source, revision=revision or "main", trust_remote_code=False, num_labels=1
        )
    except (ValueError, KeyError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"{where}: transformers cannot read its config.json: {reason}; correct the file, or "
            "give another model"
        ) from None
    known = config.model_type in ENCODERS or _has_head(config)
    if config.is_encoder_decoder:
        kind = "an encoder-decoder"
    elif getattr(config, "is_decoder", False) or not known:
        kind = "no encoder"
    elif config.model_type not in CLASSIFIERS:
        kind = "no sequence classifier in transformers"
    else:
        return config
    name = (config.architectures or [type(config).__name__])[0]
    raise ConfigError(
        f"{where}: expected an encoder such as BERT, RoBERTa, ELECTRA, DeBERTa-v3 or ModernBERT, "
        f"found {name} (model_type {config.model_type}): {kind}; language models serve as teachers"
    )


def keep_layers(config: Any, layers: int, where: str) -> None:
    """Cut the configuration to the first `layers` layers.

    Raises:
        ConfigError: the model has fewer, or its depth is no single number (Funnel).
    """
    try:
        if layers > (there := config.num_hidden_layers):
            raise ConfigError(
                f"{where}: model.keep_layers={layers} is more than its {there} layers; set at most "
                f"{there}, or leave keep_layers out"
            )
        config.num_hidden_layers = layers
    except (AttributeError, NotImplementedError):
        raise ConfigError(
            f"{where}: model.keep_layers={layers} needs a model with a number of layers, "
            f"{config.model_type} has none that can be set; leave keep_layers out"
        ) from None
    if getattr(config, "layer_types", None):  # ModernBERT: local and global attention
        config.layer_types = config.layer_types[: config.num_hidden_layers]


def read_classifier(
    folder: Path, config: Any, where: str, *, kernel: str, shallower: bool
) -> nn.Module:
    """The model in float32 with all its weights; a missing head is drawn at random.

    Args:
        config: as `sequence_config` gives it.
        kernel: attention implementation.
        shallower: the configuration leaves out layers of the folder on purpose.

    Raises:
        ConfigError: see `expect_whole`.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    trained = _has_head(config)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # `expect_whole` reports missing weights
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=kernel,
            ignore_mismatched_sizes=True,  # transformers' own error names no weight
            output_loading_info=True,
        )
    finally:
        logging.set_verbosity(verbosity)
    expect_whole(info, model.base_model_prefix, where, trained=trained, shallower=shallower)
    _align(model)
    return model  # type: ignore[no-any-return]


def _align(model: nn.Module) -> None:
    """Copy the weights out of the mapped file.

    In the file, weights begin at any multiple of 4 bytes, which depends on the length of the
    header. Matrix products differ in the last bit with such memory: the same weights would score
    differently before and after they are saved.
    """
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.clone()


def _has_head(config: Any) -> bool:
    return str((config.architectures or [""])[0]).endswith("ForSequenceClassification")


def expect_whole(
    info: Mapping[str, Iterable[Any]], base: str, where: str, *, trained: bool, shallower: bool
) -> None:
    """Refuse weights that do not fit, from what `from_pretrained` reports about loading.

    Args:
        info: `output_loading_info`: missing_keys, unexpected_keys, mismatched_keys.
        base: the model's `base_model_prefix`; keys outside it belong to the head.
        trained: the folder is a sequence classifier, so that its head must be there as well.
        shallower: the configuration leaves out layers on purpose.

    Raises:
        ConfigError: weights below the head are missing, a shape differs, or the file has layers
            that the configuration does not.
    """
    if info["mismatched_keys"]:
        differing = [f"{k} is {_shape(a)}, not {_shape(b)}" for k, a, b in info["mismatched_keys"]]
        remedy = (
            "a head with several outputs is no relevance score: give a model with one output, or "
            "the pretrained model without its head"
            if all(_is_head(key, base) for key, *_ in info["mismatched_keys"])
            else "config.json and the safetensors files belong to different models: give a folder "
            "that save_pretrained wrote"
        )
        raise ConfigError(f"{where}: weights of other shapes: {_listed(differing)}; {remedy}")
    lacking = [key for key in info["missing_keys"] if trained or not _is_head(key, base)]
    if lacking:
        kind = "trained cross-encoder" if trained else "model without a head"
        raise ConfigError(
            f"{where}: expected all weights of a {kind}, {len(lacking)} are missing and would be "
            f"random: {_listed(lacking)}; save the model again, or correct config.json"
        )
    extra = [key for key in info["unexpected_keys"] if _LAYER.search(key)]
    if extra and not shallower:
        raise ConfigError(
            f"{where}: the file has layers that config.json does not have, {len(extra)} weights: "
            f"{_listed(extra)}; set model.keep_layers to leave layers out, or correct config.json"
        )


def _is_head(key: str, base: str) -> bool:
    """Whether a weight belongs to the head; the pooler does, which masked language models lack."""
    return not key.startswith(f"{base}.") or key.startswith(f"{base}.pooler.")


def _listed(keys: Iterable[str]) -> str:
    names = sorted(keys)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _shape(size: Iterable[int]) -> str:
    return "x".join(map(str, size))
