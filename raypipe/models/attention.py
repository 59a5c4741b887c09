"""Which implementation of attention a model is loaded with, and scores with."""

from __future__ import annotations

from torch import nn


def attention_kernel(device: str, model_type: str = "bert") -> str:
    """The attention implementation to load a model with: eager on CPU, sdpa on GPU.

    In bf16 without attention dropout, on a CPU without AMX, eager is 1.6 times as fast as sdpa in
    training and 1.5 times in scoring (jobs/benchmark.py); with AMX scoring changes to sdpa
    (`use_sdpa`). DeBERTa adds relative positions to the attention scores, and has eager only.
    """
    return "eager" if device == "cpu" or model_type.startswith("deberta") else "sdpa"


def use_sdpa(model: nn.Module) -> None:
    """Change every transformer in the model to the sdpa kernel, where its family has one."""
    from transformers import PreTrainedModel

    for module in model.modules():
        if (
            isinstance(module, PreTrainedModel)
            and module._supports_sdpa
            and module._can_set_attn_implementation()
        ):
            module.set_attn_implementation("sdpa")
