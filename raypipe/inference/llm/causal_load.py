"""A causal language model and its tokenizer, loaded from safetensors or a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from raypipe.config import ConfigError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def chat_tokenizer(folder: Path, gguf_file: str | None) -> Any:
    """The fast tokenizer of a model that chats.

    Raises:
        ConfigError: it has no chat template.
    """
    from transformers import AutoTokenizer

    gguf = {"gguf_file": gguf_file} if gguf_file else {}
    tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, use_fast=True, **gguf
    )
    if tokenizer.chat_template is None:
        raise ConfigError(
            f"engine transformers: {gguf_file or folder.name} has no chat template; expected an "
            "instruction-tuned model (its name often ends in Instruct or -it)"
        )
    return tokenizer


def causal_lm(folder: Path, gguf_file: str | None, precision: str, tokenizer: Any) -> Any:
    """The model, dense, set to greedy decoding."""
    import transformers
    from transformers.utils import logging

    options: dict[str, Any] = {"use_safetensors": True}
    if gguf_file is not None:
        options = {"gguf_file": gguf_file}
        if hasattr(transformers, "GgufConfig"):  # packed weights are 3 times slower in bf16 on CPU
            options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=DTYPES[precision], trust_remote_code=False, **options
    ).eval()
    end = model.generation_config.eos_token_id or tokenizer.eos_token_id
    first_end = end[0] if isinstance(end, list) else end
    # The model's own settings would bring sampling and repetition penalties.
    model.generation_config = transformers.GenerationConfig(
        do_sample=False,
        eos_token_id=end,
        pad_token_id=first_end if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
    )
    return model
