"""The family's plain sequence classifier over the encoder of a similarity head."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from raypipe.models.score_heads import score_in_float32


def plain_classifier(model: Any, seed: int, bias: float) -> nn.Module:
    """A classifier of one output with the weights of the model's encoder; only its head is new.

    The new head starts near the identity, so that its layers hand on what the first token's state
    holds instead of a small random image of it, and gives nearly `bias` to all pairs.

    Args:
        model: a similarity head, as `CrossEncoder.load` gives it.
        seed: of what is drawn.
        bias: the mean of the scores that the classifier is to learn.
    """
    from transformers import AutoModelForSequenceClassification

    config = model.config.of_backbone()
    config.num_labels = 1
    config.raypipe = getattr(model.config, "raypipe", None)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        plain: Any = AutoModelForSequenceClassification.from_config(
            config, attn_implementation=model.config._attn_implementation
        )
    encoder = plain.base_model
    missing, extra = encoder.load_state_dict(model.encoder.state_dict(), strict=False)
    assert not extra and all(key.startswith("pooler.") for key in missing), (missing, extra)
    inherited = {id(p) for name, p in encoder.named_parameters() if name not in set(missing)}
    linear = [m for m in plain.modules() if isinstance(m, nn.Linear)]
    new = [layer for layer in linear if id(layer.weight) not in inherited]
    with torch.no_grad():
        for layer in new:
            if layer.out_features == 1:
                layer.bias.fill_(bias) if layer.bias is not None else None
            elif layer.in_features == layer.out_features:
                layer.weight.add_(torch.eye(layer.in_features))
    score_in_float32(plain)
    return plain.to(model.device)  # type: ignore[no-any-return]
