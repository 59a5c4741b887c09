"""Reading a folder's classifier, with an error where its architecture or its weights do not fit.

transformers draws missing weights at random and logs a line; here missing weights are an error.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raypipe.config import ConfigError
from raypipe.models.tokenizer import load_tokenizer

LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")
_SHOWN = 6
_ENCODER_PARTS = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
"""Encoder-decoders whose encoder gives vectors (GTR, sentence-t5)."""
SIMILARITY = "raypipe_similarity"
"""The model_type of similarity.py, which takes seconds to import."""


def sequence_config(folder: Path, where: str, *, trained_labels: bool = False) -> Any:
    """The transformers configuration of an encoder with one output.

    Args:
        folder: a Hugging Face directory.
        where: the model as the error names it, such as "model.backbone X".
        trained_labels: keep the outputs that the model was trained with.

    Raises:
        ConfigError: an unknown architecture, an encoder-decoder (T5), or a causal language model.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS,
    )
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS,
    )

    one = {} if trained_labels else {"num_labels": 1}
    config = _read_config(folder, where, **one)
    if config.model_type == SIMILARITY:
        return config
    known = config.model_type in ENCODERS or has_head(config)
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


def _register_similarity() -> None:
    """Let transformers open similarity heads by raypipe's code, never by that in their folder."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from raypipe.models.similarity import SimilarityConfig, SimilarityForSequenceClassification

    AutoConfig.register(SIMILARITY, SimilarityConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(
        SimilarityConfig, SimilarityForSequenceClassification, exist_ok=True
    )


def head_code(model_type: str) -> Path | None:
    """The file that a checkpoint of this type needs beside its weights, where others open it."""
    return Path(__file__).with_name("similarity.py") if model_type == SIMILARITY else None


@contextlib.contextmanager
def changed_backbone(config: Any) -> Iterator[Any]:
    """The transformer's own configuration, to be changed; also that below a similarity head."""
    if config.model_type != SIMILARITY:
        yield config
        return
    inner = config.of_backbone()
    yield inner
    config.take_backbone(inner.to_dict())


def encoder_config(folder: Path, where: str) -> Any:
    """The transformers configuration of a model that gives one vector per token.

    Args:
        folder: a Hugging Face directory.
        where: the model as the error names it.

    Raises:
        ConfigError: an unknown architecture, or one without an encoder that stands alone.
    """
    config = _read_config(folder, where)
    alone = not config.is_encoder_decoder or config.model_type in _ENCODER_PARTS
    if alone and getattr(config, "hidden_size", None):
        return config
    raise ConfigError(
        f"{where}: expected a model with one vector per token, found {type(config).__name__} "
        f"(model_type {config.model_type}); give an encoder, or a language model of texts"
    )


def _read_config(folder: Path, where: str, **fields: Any) -> Any:
    from transformers import AutoConfig

    _register_similarity()
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **fields)
    except Exception as error:  # configurations raise what they like
        raise _unreadable(folder, where, error) from None
    if quantised := getattr(config, "quantization_config", None):
        kind = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise ConfigError(
            f"{where}: expected weights in floating point, found quantised ones ({kind}, "
            "quantization_config in its config.json), which raypipe neither trains nor scores "
            "with; give the model that they were made from"
        )
    return config


def _unreadable(folder: Path, where: str, error: Exception) -> ConfigError:
    from transformers import PretrainedConfig

    reason = " ".join((str(error) or type(error).__name__).split())
    code: Any = {}
    with contextlib.suppress(Exception):  # of a file that is none, the reason tells
        code = PretrainedConfig.get_config_dict(folder)[0].get("auto_map") or {}
    if code:
        return ConfigError(
            f"{where}: the model has code of its own ({', '.join(map(str, code.values()))}, "
            f"auto_map in its config.json), which raypipe never runs, and transformers does not "
            f"know it: {reason}; give a model that transformers knows"
        )
    return ConfigError(
        f"{where}: transformers cannot read its config.json: {reason}; correct the file, or "
        "give another model"
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

    trained = has_head(config)
    model, info = _quietly(
        AutoModelForSequenceClassification, folder, config=config, attn_implementation=kernel
    )
    expect_whole(info, model.base_model_prefix, where, trained=trained, shallower=shallower)
    align(model)
    return model  # type: ignore[no-any-return]


def read_encoder(
    folder: Path,
    where: str,
    kernel: Callable[[str], str],
    change: Callable[[Any], None] = lambda config: None,
) -> nn.Module:
    """The model without a head, in float32 with all its weights.

    Args:
        kernel: gives the attention implementation by model type.
        change: sets what a recipe sets in the configuration, such as dropout.

    Raises:
        ConfigError: see `encoder_config`; or weights are missing, or belong to layers that the
            configuration does not have.
    """
    import transformers

    config = encoder_config(folder, where)
    if config.model_type == SIMILARITY:
        return _read_below_similarity(folder, config, where, kernel, change)
    change(config)
    loader = getattr(transformers, _ENCODER_PARTS.get(config.model_type, "AutoModel"))
    kind = kernel(config.model_type)
    model, info = _quietly(loader, folder, config=config, attn_implementation=kind)
    lacking = [key for key in info["missing_keys"] if not key.startswith("pooler.")]
    differing = [key for key, *_ in info["mismatched_keys"]]
    extra = [key for key in info["unexpected_keys"] if LAYER.search(key)]
    part = model.config.model_type in _ENCODER_PARTS  # the decoder stays in the file
    if lacking or differing or (extra and not part):
        raise ConfigError(
            f"{where}: expected all weights of {type(model).__name__} and no other layers, found "
            f"{len(lacking)} missing, {len(differing)} of other shapes and "
            f"{0 if part else len(extra)} of other layers: "
            f"{_listed([*lacking, *differing, *([] if part else extra)])}; the model is another "
            "architecture than its config.json says: copy or save it again"
        )
    return model  # type: ignore[no-any-return]


def _read_below_similarity(
    folder: Path,
    config: Any,
    where: str,
    kernel: Callable[[str], str],
    change: Callable[[Any], None],
) -> nn.Module:
    """The encoder of a model with a similarity head, of the kind that the encoder had before."""
    from transformers import AutoModelForSequenceClassification

    with changed_backbone(config) as inner:
        change(inner)
        kind = kernel(inner.model_type)
    loader = AutoModelForSequenceClassification
    model, info = _quietly(loader, folder, config=config, attn_implementation=kind)
    expect_whole(info, model.base_model_prefix, where, trained=True, shallower=False)
    encoder: nn.Module = model.encoder
    return encoder


def read_similarity(
    folder: Path, config: Any, where: str, *, kernel: str, shallower: bool
) -> nn.Module:
    """A similarity head over the folder's encoder, in float32; nothing is drawn at random.

    Args:
        config: the encoder's, as `sequence_config` gives it.

    Raises:
        ConfigError: see `expect_whole`, or no token tells where the document begins.
    """
    from transformers import AutoModel

    from raypipe.models.similarity import SimilarityConfig, SimilarityForSequenceClassification

    separator = separator_of(load_tokenizer(folder), where)
    encoder, info = _quietly(AutoModel, folder, config=config, attn_implementation=kernel)
    info["missing_keys"] = [f"encoder.{key}" for key in info["missing_keys"]]
    info["mismatched_keys"] = [(f"encoder.{key}", *of) for key, *of in info["mismatched_keys"]]
    expect_whole(info, "encoder", where, trained=False, shallower=shallower)
    settings = SimilarityConfig(
        backbone=config.to_dict(), separator=separator, num_labels=1, attn_implementation=kernel
    )
    model = SimilarityForSequenceClassification(settings)
    missing, _ = model.encoder.load_state_dict(encoder.state_dict(), strict=False)
    assert not missing, f"weights that the encoder lacks: {missing}"
    return model


def separator_of(tokenizer: Any, where: str) -> list[int] | None:
    """The special tokens between query and document; None where token types tell the two apart.

    Raises:
        ConfigError: the tokenizer joins both without a mark.
    """
    encoded = tokenizer("a", "b", return_token_type_ids=True)
    sides, ids = encoded.sequence_ids(0), encoded["input_ids"]
    types = [
        [t for t, of in zip(encoded["token_type_ids"], sides, strict=True) if of == side]
        for side in (0, 1)
    ]
    typed = "token_type_ids" in tokenizer.model_input_names
    if typed and max(types[0]) == 0 < min(types[1]):
        return None
    last = max(place for place, side in enumerate(sides) if side == 0)
    separator: list[int] = ids[last + 1 : sides.index(1)]
    if not separator or separator[0] in ids[:last]:
        raise ConfigError(
            f"{where}: model.head=similarity needs a token that marks where the document begins, "
            "the tokenizer joins query and document without one; set model.head=classifier"
        )
    return separator


def _quietly(loader: Any, folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """(model in float32, what `from_pretrained` reports), without its own warnings."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # `expect_whole` reports missing weights
    logging.disable_progress_bar()
    try:
        model, info = loader.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # transformers' own error names no weight
            output_loading_info=True,
            **options,
        )
    finally:
        logging.set_verbosity(verbosity)
    return model, info


def align(model: nn.Module) -> None:
    """Copy the weights out of the mapped file.

    In the file, weights begin at any multiple of 4 bytes, which depends on the length of the
    header. Matrix products differ in the last bit with such memory: the same weights would score
    differently before and after they are saved.
    """
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.clone()


def has_head(config: Any) -> bool:
    """Whether the folder is a trained sequence classifier."""
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
    extra = [key for key in info["unexpected_keys"] if LAYER.search(key)]
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
