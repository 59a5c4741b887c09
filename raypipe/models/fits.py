"""Whether a model's config.json describes the weights beside it; no weight is read.

Loading refuses the same, after hours of work: here names and shapes are those of the headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raypipe.models.checks import without_weights
from raypipe.models.soundness import header
from raypipe.models.weights import LAYER, SIMILARITY, expect_whole, has_head

Shape = tuple[int, ...]


def check_fits(
    folder: Path, config: Any, where: str, *, headless: bool = False, shallower: bool = False
) -> None:
    """Refuse a configuration of other shapes or another number of layers than the folder's weights.

    Weights that only one side names by this name are left to loading, which knows the old names of
    a family; the head is too.

    Args:
        folder: of the model; without safetensors in it, nothing is said.
        config: as `sequence_config` or `encoder_config` gives it, with all its layers.
        where: the model, such as "model.backbone X".
        headless: the model has no head of transformers' own.
        shallower: the recipe leaves out layers on purpose.

    Raises:
        ConfigError: see `expect_whole`.
    """
    whole, shards = folder / "model.safetensors", folder.glob("model-*-of-*.safetensors")
    paths = [whole] if whole.is_file() else sorted(shards)
    if not paths or config.model_type == SIMILARITY:
        return
    model = without_weights(config, where, headless=headless)
    base = f"{model.base_model_prefix}."
    wanted = {
        name.removeprefix(base): tuple(weight.shape)
        for name, weight in model.state_dict().items()
        if headless or name.startswith(base)
    }
    found: dict[str, Shape] = {
        name.removeprefix(base): tuple(entry["shape"])
        for path in paths
        for name, entry in header(path, where).items()
    }
    info = {
        "mismatched_keys": [
            (f"{base}{name}", found[name], shape)
            for name, shape in wanted.items()
            if found.get(name, shape) != shape
        ],
        "missing_keys": [f"{base}{name}" for name in _layers_of(wanted, found)],
        "unexpected_keys": [f"{base}{name}" for name in _layers_of(found, wanted)],
    }
    trained = not headless and has_head(config)
    expect_whole(info, base.removesuffix("."), where, trained=trained, shallower=shallower)


def _layers_of(names: Mapping[str, Shape], others: Mapping[str, Shape]) -> list[str]:
    """Weights of layers that the others lack, though they have such a weight in their first one;
    those of all layers where the others are of another family."""
    strangers = not names.keys() & others.keys()
    return [
        name
        for name in names
        if name not in others
        and (layer := LAYER.search(name))
        and (strangers or f"{name[: layer.start(1)]}0{name[layer.end(1) :]}" in others)
    ]
