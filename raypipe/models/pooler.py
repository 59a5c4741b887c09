"""Whether the pooler that a classifier reads through was ever trained."""

from __future__ import annotations

import torch
from torch import nn

_DRAWN = 1.1
"""Untrained weights spread at most this many times as wide as the family draws them: a draw of few
weights may be a little wider."""


def untrained_pooler(model: nn.Module) -> str | None:
    """A sentence if the model's head reads through a pooler of the backbone that nobody trained.

    Its bias is exactly 0 then, as it was made, and its weights spread no wider than drawn. Families
    without a pooler below their head (RoBERTa, ELECTRA, ModernBERT) give None.

    Args:
        model: as `CrossEncoder.load` gives it, not yet sharded.
    """
    encoder = getattr(model, str(getattr(model, "base_model_prefix", "")), None)
    dense = getattr(getattr(encoder, "pooler", None), "dense", None)
    if dense is None or dense.bias is None or bool(dense.bias.detach().any()):
        return None
    spread = float(torch.std(dense.weight.detach().float()))
    drawn = float(model.config.initializer_range)  # type: ignore[union-attr,arg-type]
    if spread > _DRAWN * drawn:
        return None
    return (
        f"The backbone's pooler was never trained (bias 0, standard deviation of the weights "
        f"{spread:.2g} at initializer_range {drawn:g}), and the classifier reads through it: the "
        "loss may stand still for the first quarter of a short stage; train longer, or set "
        "model.head=similarity, which needs no pooler."
    )
