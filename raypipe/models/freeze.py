"""Freezing, recomputing and compiling a model: the same three calls for every family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from raypipe.config import ConfigError

_POSITIONS = ("position_embeddings", "embed_positions", "wpe")


def freeze(model: nn.Module, *, embeddings: bool, position_embeddings: bool, layers: int) -> int:
    """Exclude weights from training.

    Call `freeze` before the optimizer is built and before DDP or FSDP wraps the model. Dropout
    stays active in frozen layers.

    Args:
        model: a transformers sequence classifier.
        embeddings: freeze all tables before the first layer (words, positions, types), their norm,
            and ELECTRA's projection.
        position_embeddings: freeze the table of absolute positions. ModernBERT (rotary) and
            DeBERTa-v3 (relative) have no such table and freeze nothing, so that one setting serves
            a sweep over backbones. DeBERTa's relative table belongs to every layer's attention and
            is trained.
        layers: how many first layers to freeze.

    Returns:
        How many parameters are frozen, each counted once.

    Raises:
        ConfigError: the model has fewer layers, or its layers share their weights (ALBERT).
    """
    base = _base(model)
    frozen: dict[int, nn.Parameter] = {}
    modules: list[nn.Module] = []
    if embeddings:
        modules += _embeddings(base)
    if position_embeddings:
        modules += position_tables(model)
    if layers:
        modules += _layers(model, layers)[:layers]
    for module in modules:
        for parameter in module.parameters():
            parameter.requires_grad_(False)
            frozen[id(parameter)] = parameter
    return sum(parameter.numel() for parameter in frozen.values())


def position_tables(model: nn.Module) -> Iterator[nn.Embedding]:
    """The tables of absolute positions; models with relative or rotary positions have none."""
    for name, module in _base(model).named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _POSITIONS:
            yield module


def enable_gradient_checkpointing(model: nn.Module) -> None:
    """Recompute activations in the backward pass: less memory for one more forward pass.

    Gradients are the same bits on CPU, with dropout too, since the random state is restored.
    """
    model.gradient_checkpointing_enable(  # type: ignore[operator]
        gradient_checkpointing_kwargs={"use_reentrant": False, "preserve_rng_state": True}
    )


def compiled(model: nn.Module, backend: str = "inductor") -> nn.Module:
    """The same model, which its first forward compiles; the names in its state dict stay.

    `torch.compile(model)` would wrap the model and put `_orig_mod.` before every name. Shapes are
    dynamic, since lengths differ from batch to batch. Inductor's own random numbers would drop out
    other places than the model does uncompiled.
    """
    options: dict[str, str | int | bool | Callable[..., Any]] = {"fallback_random": True}
    model.compile(backend=backend, dynamic=True, options=options if backend == "inductor" else None)
    return model


def _base(model: nn.Module) -> Any:
    """The encoder without its head: `model.bert`, `model.deberta`, ModernBERT's `model.model`."""
    return getattr(model, "base_model", model)


def _embeddings(base: Any) -> list[nn.Module]:
    tables = base.embeddings if hasattr(base, "embeddings") else base.get_input_embeddings()
    return [tables, base.embeddings_project] if hasattr(base, "embeddings_project") else [tables]


def _layers(model: Any, wanted: int) -> nn.ModuleList:
    """All layers of the model, of which at least `wanted` are there.

    Raises:
        ConfigError: the model has fewer layers, or has no list of layers.
    """
    depth = model.config.num_hidden_layers
    family = model.config.model_type
    for module in _base(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            if wanted > depth:
                raise ConfigError(
                    f"freezing the first {wanted} layers: {family} here has {depth}; "
                    f"freeze at most {depth}"
                )
            return module
    raise ConfigError(
        f"freezing the first {wanted} layers: {family} has no list of {depth} layers of its own "
        "(ALBERT shares one layer's weights); freeze 0 layers"
    )
