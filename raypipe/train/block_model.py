"""The model in training, as an objective reads it: scores, hidden states, a whole block at once.

Shapes: Q queries, D documents per group (padded), P passages (one per pair, or more), B passages of
a batch, L tokens (padded), H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from raypipe.inference.scoring import autocast
from raypipe.inference.transfer import on_device, to_tensors
from raypipe.losses.base import Known, Loss
from raypipe.train.batches import Block
from raypipe.train.score_matrix import fitted, score_matrix

OnScores = Callable[[Block, Tensor], None]


@dataclass(frozen=True)
class PassageBatch:
    """Passages of similar length that the model read together."""

    positions_B: Tensor
    """Which of the block's P passages these are."""
    mask_BL: Tensor
    """Bool: real tokens."""
    hidden_states: tuple[Tensor, ...]
    """[B, L, H] after the embeddings and after every layer, the last layer's last, with a graph."""


@dataclass(frozen=True)
class BlockReading:
    """A block as the model read it: scores with a graph, and what they are fitted to."""

    scores_QD: Tensor
    """Float32; 0 where there is no document."""
    targets_QD: Tensor
    mask_QD: Tensor
    """Bool: documents with a usable target."""
    known: Known
    batches: tuple[PassageBatch, ...]
    """Empty unless hidden states were asked for."""

    def loss(self, loss: Loss) -> Tensor:
        """The mean over the block's queries of a loss over scores."""
        return loss(self.scores_QD, self.targets_QD, self.mask_QD, self.known)

    def mean_states(self, layer: int = -1) -> Tensor:
        """[P, H] every passage's mean state over its real tokens after a layer, float32."""
        parts, places = [], []
        for batch in self.batches:
            weights_BL1 = batch.mask_BL.unsqueeze(-1).float()
            states_BLH = batch.hidden_states[layer].float()
            parts.append((states_BLH * weights_BL1).sum(1) / weights_BL1.sum(1))
            places.append(batch.positions_B)
        return torch.cat(parts)[torch.argsort(torch.cat(places))]


@dataclass(frozen=True)
class BlockModel:
    """The model in training as an objective calls it: on a whole block, with a graph."""

    module: nn.Module
    """Takes `input_ids` and `attention_mask` [B, L]; perhaps wrapped for several workers."""
    precision: str
    on_scores: OnScores = lambda block, scores: None

    @cached_property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def outputs(self, block: Block, **options: Any) -> Iterator[tuple[Tensor, Tensor, Any]]:
        """(positions [B], mask [B, L], what the model returns) of each batch of the block.

        Args:
            options: for the model, such as `output_attentions=True`.
        """
        for positions, inputs in block.batches:
            with autocast(str(self.device), self.precision):
                tensors = to_tensors(inputs, str(self.device))
                output = self.module(**tensors, **options)
            yield (
                on_device(positions, self.device),
                tensors["attention_mask"].bool(),
                output,
            )

    def read(self, block: Block, *, hidden_states: bool = False) -> BlockReading:
        """Scores, targets, and where asked for every layer's states.

        Raises:
            ValueError: hidden states are asked for and the model gives none.
        """
        scores_P = torch.zeros(block.passages, device=self.device)
        batches = []
        options = {"output_hidden_states": True} if hidden_states else {}
        for positions, mask_BL, output in self.outputs(block, **options):
            scores_P = scores_P.index_put((positions,), output.logits[:, 0].float())
            if hidden_states:
                states = getattr(output, "hidden_states", None)
                if states is None:
                    raise ValueError(
                        f"objective: expected hidden states, {type(self.module).__name__} gives "
                        "none; read `outputs`, or take another backbone or head"
                    )
                batches.append(PassageBatch(positions, mask_BL, tuple(states)))
        scores_QD = score_matrix(scores_P, block)
        self.on_scores(block, scores_QD.detach())
        return BlockReading(scores_QD, *fitted(block, self.device), tuple(batches))
