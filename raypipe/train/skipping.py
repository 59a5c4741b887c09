"""A loss filter at work in a step of several workers: what it is asked and who hears the answer.

Shapes: Q queries of a step over all workers, K of them that are run forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from raypipe.losses.base import Loss
from raypipe.train.batches import Batcher
from raypipe.train.filtering import Array, LossFilter, in_order
from raypipe.train.gradients import block_scores, query_losses
from raypipe.train.parallel import agree, gathered, rank_and_world
from raypipe.train.predictor import group_features


def kept_rows(
    rows: Sequence[int],
    filter_: LossFilter,
    batcher: Batcher,
    losses_of: Callable[[list[int]], list[float]],
) -> list[int]:
    """The groups of a step that are trained on; every worker gets rank 0's answer.

    Args:
        losses_of: this worker's losses of its share of the groups, rows[rank::workers].
    """
    rank, world = rank_and_world()
    keep_Q = None
    if rank == 0:
        keep_Q = (
            filter_.forward_all(len(rows))
            if filter_.config.mode == "backward"
            else filter_.forward(np.stack([features(batcher, row) for row in rows]))
        )
    examined = [row for row, keep in zip(rows, agree(keep_Q), strict=True) if keep]
    parts = gathered(np.array(losses_of(examined[rank::world])))
    keep_K = filter_.backward(in_order(parts)) if rank == 0 else None
    return [row for row, keep in zip(examined, agree(keep_K), strict=True) if keep]


def losses_without_graph(
    model: nn.Module, batcher: Batcher, loss: Loss, precision: str, rows: list[int]
) -> list[float]:
    """The loss of each group, as the model in training mode has it."""
    device, found = next(model.parameters()).device, []
    with torch.no_grad():
        for block in batcher.blocks(rows):
            found += query_losses(loss, block_scores(model, block, precision, device), block)
    return found


def features(batcher: Batcher, row: int) -> Array:
    """What is known of a group before the model has read it."""
    query, docs, relevance, given = batcher.groups[row]
    values, usable = batcher.targets.of(relevance, given)
    ranks = batcher.groups.table.column("ranks")[row].as_py()
    teacher = np.where(usable, values, np.nan) if batcher.targets.uses == "teacher" else None
    return group_features(
        len(batcher.query_tokens[query]),
        np.array([len(batcher.doc_tokens[int(doc)]) for doc in docs]),
        relevance >= batcher.targets.positive_relevance,
        np.array([rank or 0 for rank in ranks]),
        teacher,
    )
