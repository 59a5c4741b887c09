"""How much the vectors of a corpus take, and what to say where a machine has less memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from raypipe.models.sentence_modules import SentenceModules

_WIDTHS = ("hidden_size", "dim", "d_model", "n_embd")
"""What configurations of transformers call the width of a token's vector."""


def memory_of_machine() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def width_of(config: Mapping[str, Any], modules: SentenceModules) -> int | None:
    """Numbers of a vector; None where the files do not say.

    Args:
        config: the transformer's config.json.
    """
    for layer in reversed(modules.layers):
        if layer.kind == "Dense":
            return int(layer.settings["out_features"])
    known = next((config[name] for name in _WIDTHS if name in config), None)
    return None if known is None else int(known) * len(modules.pooling)


def too_large(rows: int, width: int | None) -> str | None:
    """A sentence on float32 vectors that exceed the memory; None where they fit."""
    size, memory = rows * (width or 0) * 4, memory_of_machine()
    if size <= memory:
        return None
    return (
        f"the vectors of {rows:,} texts, {width} numbers each, take {size / 1e9:,.1f} GB, and this "
        f"machine has {memory / 1e9:,.1f} GB of memory"
    )
