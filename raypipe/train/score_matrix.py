"""From what the model gives to the scores of documents, and what they are fitted to.

Shapes: Q queries, D documents per group (padded), T pairs, P passages (one per pair, or more; of a
bi-encoder: texts), H numbers of a vector.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from raypipe.inference.transfer import on_device
from raypipe.losses.base import Known
from raypipe.train.batches import Block, Pairing


def score_matrix(outputs: Tensor, block: Block) -> Tensor:
    """[Q, D] the score of every document; 0 where there is none.

    Args:
        outputs: scores [P] of passages, of which a document's best counts, or vectors [P, H] of
            texts, of which a pair's score is the product over the temperature.
    """
    paired = block.pairing
    scores_T = _best_passages(outputs, block) if paired is None else _products(outputs, paired)
    rows, columns = (on_device(a, outputs.device) for a in block.cells_T)
    empty_QD = torch.zeros(block.mask_QD.shape, device=outputs.device)
    return empty_QD.index_put((rows, columns), scores_T)


def _products(vectors_PH: Tensor, pairing: Pairing) -> Tensor:
    """[T] the score of every pair."""
    queries_TH, docs_TH = (
        vectors_PH[on_device(places_T, vectors_PH.device)]
        for places_T in (pairing.query_T, pairing.doc_T)
    )
    return (queries_TH * docs_TH).sum(-1) / pairing.temperature


def _best_passages(scores_P: Tensor, block: Block) -> Tensor:
    """[T] the score of every pair's best passage, which alone gets the gradient.

    Of equal passages `max` along a dimension picks the first; `amax` would share the gradient.
    """
    if block.passages == block.pairs:
        return scores_P
    pair, column = (on_device(a, scores_P.device) for a in block.cells_P)
    shape = (block.pairs, int(block.cells_P[1].max()) + 1)
    nothing = torch.full(shape, -math.inf, device=scores_P.device)
    best: Tensor = nothing.index_put((pair, column), scores_P).max(dim=1).values
    return best


def fitted(block: Block, device: torch.device) -> tuple[Tensor, Tensor, Known]:
    """What a loss takes beside the scores: targets, mask, and labels with what else is known."""
    columns = (block.targets_QD, block.mask_QD, block.labels_QD)
    targets_QD, mask_QD, labels_QD = (on_device(a, device) for a in columns)
    preferences_QDD = None
    if block.preferences_QDD is not None:
        preferences_QDD = on_device(block.preferences_QDD, device)
    weights_Q = None if block.weights_Q is None else on_device(block.weights_Q, device)
    return targets_QD, mask_QD, Known(labels_QD, preferences_QDD, weights_Q)
