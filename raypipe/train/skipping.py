"""Asks the loss filter, on behalf of all workers, which groups of a step are trained on.

Rank 0 asks its filter and broadcasts the answer: exp() may differ in the last bit between unlike
CPUs, and workers that disagree hang. A worker that gets no group still takes part in the gradient's
all-reduce. Without any kept group the optimizer step is left out, and the schedule goes on.

Shapes: Q queries of a step over all workers, K of them that are run forward, D documents per group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from raypipe.losses.base import Loss
from raypipe.train.batches import Batcher
from raypipe.train.gradients import block_scores, query_losses
from raypipe.train.loss_filter import Array, LossFilter
from raypipe.train.parallel import agree, gathered, rank_and_world
from raypipe.train.predictor import group_features


def kept_rows(
    rows: Sequence[int],
    filter_: LossFilter,
    batcher: Batcher,
    losses_of: Callable[[list[int]], list[float]],
) -> list[int]:
    """The groups of a step that are trained on, equal on every worker; all workers call this.

    Args:
        rows: the groups of the whole step.
        losses_of: computes the losses of this worker's groups, `rows[rank::workers]` of those that
            are run forward.
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
    """The loss of each group, from a forward pass in training mode without gradients."""
    device, losses = next(model.parameters()).device, []
    with torch.no_grad():
        for block in batcher.blocks(rows):
            losses += query_losses(loss, block_scores(model, block, precision, device), block)
    return losses


def features(batcher: Batcher, row: int) -> Array:
    """`group_features` of a stored group: what is known before the model reads the group."""
    query, docs, relevance_D, teacher_D = batcher.groups[row]
    values_D, usable_D = batcher.targets.of(relevance_D, teacher_D)
    ranks = batcher.groups.table.column("ranks")[row].as_py()
    fits_teacher = batcher.targets.uses == "teacher"
    return group_features(
        len(batcher.query_tokens[query]),
        np.array([len(batcher.doc_tokens[int(doc)]) for doc in docs]),
        relevance_D >= batcher.targets.positive_relevance,
        np.array([rank or 0 for rank in ranks]),
        np.where(usable_D, values_D, np.nan) if fits_teacher else None,
    )


def in_order(parts: Sequence[Array]) -> Array:
    """Values of rows[r::w] of every worker r of w, interleaved into the order of the rows.

    So the filter decides the same for any number of workers, up to the rounding of losses.

    >>> in_order([np.array([0.0, 2.0]), np.array([1.0])])
    array([0., 1., 2.])
    """
    values = np.empty(sum(len(part) for part in parts), dtype=np.float64)
    for rank, part in enumerate(parts):
        values[rank :: len(parts)] = part
    return values
