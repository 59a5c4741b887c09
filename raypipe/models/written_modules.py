"""Writes what sentence-transformers reads beside a transformer: modules, pooling, prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from raypipe.models.pooling import Mode
from raypipe.models.sentence_modules import FLAGS, SentenceModules
from raypipe.models.vector_head import VectorHead

_PACKAGE = "sentence_transformers.models"
"""Where sentence-transformers 2 to 6 find the classes of modules."""


def write_modules(
    folder: Path,
    modules: SentenceModules,
    head: VectorHead,
    *,
    width: int,
    longest: int,
    prompts: Mapping[str, str],
) -> None:
    """Write the modules after a transformer, as `read_modules` reads them.

    sentence-transformers puts a prompt before a text only where it is named: `encode_query` takes
    `query`, `encode_document` takes `document`.

    Args:
        folder: holds the transformer already.
        head: the module with the weights of Dense and LayerNorm layers.
        width: of the transformer's token vectors.
        longest: tokens per text, at which sentence-transformers cuts.
        prompts: what stands before texts, by name.
    """
    listed = [("Transformer", ""), ("Pooling", "1_Pooling")]
    listed += [
        (layer.kind, f"{place}_{layer.kind}") for place, layer in enumerate(modules.layers, start=2)
    ]
    entries = [
        {"idx": place, "name": str(place), "path": path, "type": f"{_PACKAGE}.{kind}"}
        for place, (kind, path) in enumerate(listed)
    ]
    _write(folder / "modules.json", entries)
    _write(folder / "1_Pooling" / "config.json", _pooling(modules.pooling, width))
    for (_, path), layer, own in zip(listed[2:], modules.layers, head.layers, strict=True):
        if layer.kind == "Normalize":
            (folder / path).mkdir()
        else:
            _write(folder / path / "config.json", layer.settings)
            _write_weights(own, folder / path)
    cuts = {"max_seq_length": longest, "do_lower_case": False}  # the tokenizer lower-cases
    _write(folder / "sentence_bert_config.json", cuts)
    similarity = "cosine" if modules.normalizes else "dot"
    own_settings = {"prompts": dict(prompts), "default_prompt_name": None}
    _write(
        folder / "config_sentence_transformers.json",
        {**own_settings, "similarity_fn_name": similarity},
    )


def _pooling(modes: tuple[Mode, ...], width: int) -> Mapping[str, Any]:
    """The settings of one way to pool as all versions read them, of several as version 6 does."""
    if len(modes) > 1:
        return {"embedding_dimension": width, "pooling_mode": list(modes)}
    flags = {flag: mode == modes[0] for flag, mode in FLAGS.items()}
    return {"word_embedding_dimension": width, **flags}


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _write_weights(module: nn.Module, folder: Path) -> None:
    """The weights of a Dense or LayerNorm under the names that sentence-transformers gives them."""
    from safetensors.torch import save_file

    inner, prefix = (module, "norm") if isinstance(module, nn.LayerNorm) else (module[0], "linear")
    weights = inner.state_dict().items()
    own = {f"{prefix}.{name}": value.detach().cpu().contiguous() for name, value in weights}
    save_file(own, folder / "model.safetensors", {"format": "pt"})
