"""Scoring on one device: pairs through a cross-encoder, texts through a bi-encoder. No Ray here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from raypipe.data.pairs import Budgets, LongestFirst, Template, length_batches
from raypipe.models.bi_encoder import Encoder

Array = np.ndarray[Any, Any]
Pair = tuple[Array, Array]


def autocast(device: str, precision: str) -> torch.autocast:
    """Mixed precision on `device` if `precision` is bf16, a no-op for fp32."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16")


def to_tensors(inputs: dict[str, Array], device: str) -> dict[str, torch.Tensor]:
    """Model inputs on `device`."""
    return {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}


@dataclass
class PairScorer:
    """Scores lists of (query tokens, document tokens) in length-sorted batches.

    Args:
        budget: padded tokens per batch.
        precision: "bf16" or "fp32"; the head is float32 either way.
    """

    model: nn.Module
    template: Template
    truncation: LongestFirst | Budgets
    budget: int
    precision: str
    device: str

    def cut(self, pair: Pair) -> Pair:
        """The pair as it will be read."""
        query, doc = pair
        q, d = self.truncation.cut(len(query), len(doc), self.template.n_special)
        return query[:q], doc[:d]

    def __call__(self, pairs: Sequence[Pair]) -> Array:
        """[len(pairs)] float32 scores, in the order given."""
        cut = [self.cut(pair) for pair in pairs]
        extra = self.template.n_special
        lengths = [len(q) + len(d) + extra for q, d in cut]
        scores = np.zeros(len(cut), dtype=np.float32)
        with torch.inference_mode(), autocast(self.device, self.precision):
            for rows in length_batches(lengths, self.budget):
                inputs = to_tensors(self.template.pad([cut[i] for i in rows]), self.device)
                scores[rows] = self.model(**inputs).logits[:, 0].float().cpu().numpy()
        return scores


@dataclass
class TextEncoder:
    """Encodes token-id arrays in length-sorted batches."""

    encoder: Encoder
    template: Template
    max_length: int
    budget: int
    precision: str
    device: str

    def __call__(self, texts: Sequence[Array]) -> Array:
        """[len(texts), hidden] float32 vectors, in the order given."""
        room = self.max_length - self.template.n_special
        cut = [text[:room] for text in texts]
        out: Array | None = None
        with torch.inference_mode(), autocast(self.device, self.precision):
            for rows in length_batches(
                [len(t) + self.template.n_special for t in cut], self.budget
            ):
                inputs = self.template.pad([(cut[i], None) for i in rows])
                vectors = self.encoder(**to_tensors(inputs, self.device)).float().cpu().numpy()
                if out is None:
                    out = np.zeros((len(cut), vectors.shape[1]), dtype=np.float32)
                out[rows] = vectors
        assert out is not None, "no texts"
        return out
