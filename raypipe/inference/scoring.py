"""Scoring on one device: pairs through a cross-encoder, texts through a bi-encoder. No Ray here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from raypipe.config import ConfigError
from raypipe.inference.pairs import Template, length_batches
from raypipe.inference.truncation import MaxP, Pair, Truncation, expand

if TYPE_CHECKING:
    from raypipe.models.bi_encoder import Encoder

Array = np.ndarray[Any, Any]


def autocast(device: str, precision: str) -> torch.autocast:
    """Mixed precision on `device` for bf16 and fp16, a no-op for fp32."""
    kind = torch.device(device).type
    low = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(kind, dtype=low, enabled=precision != "fp32")


def to_tensors(inputs: dict[str, Array], device: str) -> dict[str, torch.Tensor]:
    """Model inputs on `device`."""
    return {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}


@dataclass
class PairScorer:
    """Scores lists of (query tokens, document tokens) in length-sorted batches.

    A pair that is read in several passages scores as the best of them.

    Args:
        budget: padded tokens per batch.
        precision: "bf16" or "fp32"; the head is float32 either way.
    """

    model: nn.Module
    template: Template
    truncation: Truncation
    budget: int
    precision: str
    device: str

    def __call__(self, pairs: Sequence[Pair]) -> Array:
        """[len(pairs)] float32 scores, in the order given."""
        extra = self.template.n_special
        flat, counts = expand(pairs, self.truncation, extra)
        lengths = [len(q) + len(d) + extra for q, d in flat]
        scores = np.zeros(len(flat), dtype=np.float32)
        with torch.inference_mode(), autocast(self.device, self.precision):
            for rows in length_batches(lengths, self.budget):
                inputs = to_tensors(self.template.pad([flat[i] for i in rows]), self.device)
                scores[rows] = self.model(**inputs).logits[:, 0].float().cpu().numpy()
        starts = np.cumsum([0, *counts[:-1]]) if counts else np.empty(0, dtype=np.int64)
        best: Array = np.maximum.reduceat(scores, starts)
        return best

    def counts(self, pairs: Sequence[Pair]) -> dict[str, int]:
        """pairs; documents_cut: pairs whose document is not read to its end; with max_p passages.

        A document counts once for every query it is read with.
        """
        extra = self.template.n_special
        read = [self.truncation.passages(len(q), len(d), extra) for q, d in pairs]
        cut = sum(p[-1][2] < len(d) for p, (_, d) in zip(read, pairs, strict=True))
        counts = {"pairs": len(pairs), "documents_cut": cut}
        if isinstance(self.truncation, MaxP):
            counts["passages"] = sum(map(len, read))
        return counts


@dataclass
class TextEncoder:
    """Encodes token-id arrays in length-sorted batches.

    Args:
        prefixed: texts begin with the prefix of their side, if it has one.

    Raises:
        ConfigError: the recipe or the model's folder names a prefix, and texts have none.
    """

    encoder: Encoder
    template: Template
    max_length: int
    budget: int
    precision: str
    device: str
    prefixed: bool = False

    def __post_init__(self) -> None:
        if self.encoder.prompted and not self.prefixed:
            raise ConfigError(
                "the encoder has a prefix for queries or documents, by the recipe or as a prompt "
                "in the model's config_sentence_transformers.json: expected texts that begin with "
                "it, found texts of which nothing is said; put it before them and say `prefixed`, "
                'or set query_prefix and doc_prefix to ""'
            )

    @property
    def room(self) -> int:
        """Tokens of a text, prefix included, that are read: the rest is special tokens."""
        return self.max_length - self.template.n_special

    def __call__(self, texts: Sequence[Array]) -> Array:
        """[len(texts), width] float32 vectors, in the order given."""
        cut = [text[: self.room] for text in texts]
        all_vectors: Array | None = None
        with torch.inference_mode(), autocast(self.device, self.precision):
            for rows in length_batches(
                [len(t) + self.template.n_special for t in cut], self.budget
            ):
                inputs = self.template.pad([(cut[i], None) for i in rows])
                vectors = self.encoder(**to_tensors(inputs, self.device)).float().cpu().numpy()
                if all_vectors is None:
                    all_vectors = np.zeros((len(cut), vectors.shape[1]), dtype=np.float32)
                all_vectors[rows] = vectors
        assert all_vectors is not None, "no texts"
        return all_vectors
