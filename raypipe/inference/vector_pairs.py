"""Scores of pairs from the vectors of their texts, and which scorer a model needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer, TextEncoder
from raypipe.inference.truncation import Pair, Reading, TextLengths
from raypipe.models.any_model import AnyModel
from raypipe.models.tokenizer import load_tokenizer
from raypipe.models.trained_bi_encoder import TrainedBiEncoder

Array = np.ndarray[Any, Any]


@dataclass
class VectorPairScorer:
    """Scores lists of (query tokens, document tokens) by products of vectors over a temperature.

    Every distinct text of a call is encoded once. Tokens have the prefix of their side, if it has
    one.
    """

    encode: TextEncoder
    lengths: TextLengths
    temperature: float

    def __call__(self, pairs: Sequence[Pair]) -> Array:
        """[len(pairs)] float32 scores, in the order given."""
        if not pairs:
            return np.empty(0, dtype=np.float32)
        place: dict[bytes, int] = {}
        texts: list[Array] = []
        sides = np.empty((len(pairs), 2), dtype=np.int64)
        special = self.encode.template.n_special
        for row, pair in enumerate(pairs):
            kept, _, stop = self.lengths.passages(len(pair[0]), len(pair[1]), special)[0]
            for side, text in enumerate((pair[0][:kept], pair[1][:stop])):
                sides[row, side] = place.setdefault(text.tobytes(), len(texts))
                if sides[row, side] == len(texts):
                    texts.append(text)
        vectors = self.encode(texts)
        products = np.einsum("th,th->t", vectors[sides[:, 0]], vectors[sides[:, 1]])
        scores: Array = (products / self.temperature).astype(np.float32)
        return scores

    def queries(self, texts: Sequence[Array]) -> Array:
        """[len(texts), hidden] float32 vectors of queries."""
        special = self.encode.template.n_special
        cut = [text[: self.lengths.passages(len(text), 0, special)[0][0]] for text in texts]
        return self.encode(cut)

    def documents(self, texts: Sequence[Array]) -> Array:
        """[len(texts), hidden] float32 vectors of documents."""
        special = self.encode.template.n_special
        cut = [text[: self.lengths.passages(0, len(text), special)[0][2]] for text in texts]
        return self.encode(cut)

    def counts(self, pairs: Sequence[Pair]) -> dict[str, int]:
        """pairs; documents_cut: pairs whose document is not read to its end."""
        special = self.encode.template.n_special
        read = [self.lengths.passages(len(q), len(d), special)[0] for q, d in pairs]
        cut = sum(stop < len(d) for (*_, stop), (_, d) in zip(read, pairs, strict=True))
        return {"pairs": len(pairs), "documents_cut": cut}


def template_of(model: AnyModel, folder: Path) -> Template:
    """The special tokens around what the model reads at once: a pair, or one text."""
    return Template.of(load_tokenizer(folder), pair=not isinstance(model, TrainedBiEncoder))


def pair_scorer(
    model: AnyModel,
    module: nn.Module,
    template: Template,
    truncation: Reading,
    budget: int,
    precision: str,
    device: str,
) -> PairScorer | VectorPairScorer:
    """What scores pairs with a loaded model.

    Args:
        module: as `model.load` gives it.
        template: as `template_of` gives it.
        budget: padded tokens per batch.
    """
    if not isinstance(model, TrainedBiEncoder):
        assert not isinstance(truncation, TextLengths), "pairs are cut as pairs"
        return PairScorer(module, template, truncation, budget, precision, device)
    assert isinstance(truncation, TextLengths), "texts are cut each alone"
    longest = truncation.longest
    encode = TextEncoder(module, template, longest, budget, precision, device, prefixed=True)  # type: ignore[arg-type]
    return VectorPairScorer(encode, truncation, model.temperature)
