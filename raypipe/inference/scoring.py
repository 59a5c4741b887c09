"""Scoring on one device: pairs through a cross-encoder, texts through a bi-encoder. No Ray here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from raypipe.config import ConfigError
from raypipe.inference.out_of_memory import BudgetRecord, halving
from raypipe.inference.pairs import Template, even_batches, length_batches, padded_lengths
from raypipe.inference.transfer import is_gpu, made_ahead, to_tensors
from raypipe.inference.truncation import MaxP, Pair, Truncation, expand

if TYPE_CHECKING:
    from raypipe.models.bi_encoder import Encoder

Array = np.ndarray[Any, Any]
_HEADS = {"pooler", "head", "classifier", "score"}
"""Names of the modules that read one vector per text."""


def autocast(device: str | torch.device, precision: str) -> torch.autocast:
    """Mixed precision on `device` for bf16 and fp16, a no-op for fp32."""
    kind = torch.device(device).type
    low = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(kind, dtype=low, enabled=precision != "fp32")


def ready_to_score(model: nn.Module, device: str, precision: str) -> nn.Module:
    """The model as it scores in `precision`, in place. On a CPU a text's value does not depend on
    the texts beside it, see `even_batches` and `rows_alone`.

    In bf16 its weights are bf16, but the head's: no pass casts weights, and norms and residual sums
    read half as many bytes. On a CPU with AMX it then takes the sdpa kernel: MiniLM-L6 scored 1.45
    times as many pairs of 96 tokens so, and 1.8 times as many of 256, as by autocast and eager.
    """
    if not is_gpu(device):
        rows_alone(model)
    if precision != "bf16":
        return model
    if not is_gpu(device) and torch.cpu._is_amx_tile_supported():
        from raypipe.models.attention import use_sdpa

        use_sdpa(model)
    return bf16_weights(model)


def rows_alone(model: nn.Module) -> None:
    """Have heads compute one text at a time, in place: a product of few rows adds up in another
    order than one of many. What comes before has a row per token, and so never few."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not _HEADS.isdisjoint(name.split(".")):
            module.forward = partial(_row_by_row, module.forward)  # type: ignore[method-assign]


def _row_by_row(
    forward: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor
) -> torch.Tensor:
    """What `forward`, which may cast a row first, gives of each row."""
    if rows.dim() != 2:
        return forward(rows)
    return torch.cat([forward(row) for row in rows.split(1)])


def bf16_weights(model: nn.Module) -> nn.Module:
    """All weights in bf16, in place, except those of the head, which computes in float32.

    Buffers stay: angles of rotary positions in bf16 would be of other positions.
    """
    from raypipe.models.vector_head import VectorHead

    heads = [
        module
        for name, module in model.named_modules()
        if isinstance(module, VectorHead) or name.split(".")[-1] in ("classifier", "score")
    ]
    kept = {id(weight) for head in heads for weight in head.parameters()}
    for weight in model.parameters():
        if weight.is_floating_point() and id(weight) not in kept:
            weight.data = weight.data.bfloat16()
    return model


def mixed(model: nn.Module, device: str, precision: str) -> torch.autocast:
    """`autocast` for a model in float32; a model in bf16 computes in bf16 without it."""
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    low = any(weight.dtype == torch.bfloat16 for weight in weights)
    return autocast(device, "fp32" if low else precision)


class _WithinMemory:
    """Runs batches of at most `budget` padded tokens, of fewer where the device has no room."""

    budget: int
    precision: str
    device: str

    def _begin(self, model: nn.Module) -> None:
        """Take the budget that is remembered, if nobody chose another than the default."""
        self._scored = model
        if not is_gpu(self.device):
            return
        from raypipe.resources import GPU_TOKENS

        if self.budget == GPU_TOKENS:
            self.budget = min(self.budget, self._record().read() or self.budget)

    def _padded(self, lengths: list[int], most: int) -> list[int]:
        """On a CPU the tokens that each text is padded to, which nothing but its length decides.

        GPUs have no such promise to keep, and want large batches.
        """
        return lengths if is_gpu(self.device) else padded_lengths(lengths, most).tolist()

    def _batches(self, lengths: list[int], tokens: int) -> list[Array]:
        if is_gpu(self.device):
            return list(length_batches(lengths, tokens))
        return list(even_batches(np.asarray(lengths, dtype=np.int64), tokens))

    def _width(self, lengths: list[int], rows: Array) -> int:
        """Tokens that the texts of a batch are padded to."""
        return max(lengths[i] for i in rows)

    def _record(self) -> BudgetRecord:
        return BudgetRecord.of(self._scored, f"scoring in {self.precision}", self.device)

    def _halved(self, tokens: int) -> None:
        self.budget, record = tokens, self._record()
        record.write(tokens)
        print(
            f"scoring: {record.card} is out of memory; batches have {tokens:,} tokens from now on, "
            "which is remembered for this card and model",
            flush=True,
        )


@dataclass
class PairScorer(_WithinMemory):
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

    def __post_init__(self) -> None:
        self._begin(self.model)

    def __call__(self, pairs: Sequence[Pair]) -> Array:
        """[len(pairs)] float32 scores, in the order given."""
        extra = self.template.n_special
        flat, counts = expand(pairs, self.truncation, extra)
        lengths = self._padded([len(q) + len(d) + extra for q, d in flat], self.truncation.longest)
        longest = max(lengths, default=1)
        scores = halving(
            lambda tokens: self._scores(flat, lengths, tokens), self.budget, longest, self._halved
        )
        starts = np.cumsum([0, *counts[:-1]]) if counts else np.empty(0, dtype=np.int64)
        best: Array = np.maximum.reduceat(scores, starts)
        return best

    def _scores(self, flat: list[Pair], lengths: list[int], tokens: int) -> Array:
        """[len(flat)] scores of passages; the device is waited for once, at the end."""
        scores, parts = np.zeros(len(flat), dtype=np.float32), []
        batches = self._batches(lengths, tokens)
        with torch.inference_mode(), mixed(self.model, self.device, self.precision):
            for inputs in made_ahead(
                lambda rows: self.template.pad([flat[i] for i in rows], self._width(lengths, rows)),
                batches,
                threads=is_gpu(self.device),
            ):
                logits_B1 = self.model(**to_tensors(inputs, self.device)).logits
                parts.append(logits_B1[:, 0].float())
            for rows, part in zip(batches, parts, strict=True):
                scores[rows] = part.cpu().numpy()
        return scores

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
class TextEncoder(_WithinMemory):
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
        self._begin(self.encoder)

    @property
    def room(self) -> int:
        """Tokens of a text, prefix included, that are read: the rest is special tokens."""
        return self.max_length - self.template.n_special

    def __call__(self, texts: Sequence[Array]) -> Array:
        """[len(texts), width] float32 vectors, in the order given."""
        cut = [text[: self.room] for text in texts]
        assert cut, "no texts"
        lengths = self._padded(
            [len(text) + self.template.n_special for text in cut], self.max_length
        )
        return halving(
            lambda tokens: self._vectors(cut, lengths, tokens),
            self.budget,
            max(lengths),
            self._halved,
        )

    def _vectors(self, cut: list[Array], lengths: list[int], tokens: int) -> Array:
        parts, batches = [], self._batches(lengths, tokens)
        with torch.inference_mode(), mixed(self.encoder, self.device, self.precision):
            for inputs in made_ahead(
                lambda rows: self.template.pad(
                    [(cut[i], None) for i in rows], self._width(lengths, rows)
                ),
                batches,
                threads=is_gpu(self.device),
            ):
                parts.append(self.encoder(**to_tensors(inputs, self.device)).float())
            vectors = np.zeros((len(cut), parts[0].shape[1]), dtype=np.float32)
            for rows, part in zip(batches, parts, strict=True):
                vectors[rows] = part.cpu().numpy()
        return vectors
