"""The loss that a stage minimises, over groups that nobody trains on.

Shape: Q queries of a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from raypipe.losses.combination import over_group_and_step
from raypipe.train.batches import Batcher, Block
from raypipe.train.block_model import BlockModel
from raypipe.train.gradients import block_outputs, loss_of
from raypipe.train.parallel import gathered, rank_and_world
from raypipe.train.score_matrix import score_matrix
from raypipe.train.settings import TrainingSettings

Summed = tuple[float, int]
"""A sum of losses, and of how many queries."""


@dataclass(frozen=True)
class ValidationLoss:
    """Computes the mean over the groups, in float32, of what a stage minimises.

    Groups are read in their order. For terms over the step they are cut into steps by `steps_of`,
    alike at every validation and for any number of workers.

    Args:
        batcher: reads the groups.
        stage: its loss or objective is computed.
    """

    batcher: Batcher
    stage: TrainingSettings
    precision: str

    def __call__(self, model: nn.Module) -> float:
        """Without dropout and without a gradient; every worker calls this and gets the same value.

        Args:
            model: neither wrapped nor spread over workers.

        Raises:
            FloatingPointError: the loss is NaN or infinite.
        """
        model.eval()
        parts = gathered(list(self._parts(model)))
        model.train()
        sums = [part for of_worker in parts for part in of_worker]
        value = math.fsum(loss for loss, _ in sums) / sum(queries for _, queries in sums)
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the validation loss is {value}: lower lr, raise warmup, or use precision=fp32; "
                "the last checkpoint is unharmed"
            )
        return value

    def _parts(self, model: nn.Module) -> Iterator[Summed]:
        """Of this worker's groups, block by block or step by step."""
        rank, world = rank_and_world()
        rows = list(range(len(self.batcher.groups)))
        if self.stage.objective is not None:
            for block in self.batcher.blocks(rows[rank::world]):
                with torch.enable_grad():  # the objective may read gradients
                    read = BlockModel(model, self.precision)
                    value, _ = self.stage.objective.checked(read, block, self.stage.loss)
                yield float(value.detach()) * block.queries, block.queries
            return
        with torch.no_grad():
            if over_group_and_step(self.stage.loss)[1]:
                for step in steps_of(rows, self.stage.queries_per_step):
                    yield self._of_step(model, list(self.batcher.blocks(step[rank::world])))
                return
            for block in self.batcher.blocks(rows[rank::world]):
                yield self._of_group(model, block)

    def _of_group(self, model: nn.Module, block: Block) -> Summed:
        scores = score_matrix(self._outputs(model, block), block)
        return float(loss_of(self.stage.loss, scores, block)) * block.queries, block.queries

    def _of_step(self, model: nn.Module, blocks: list[Block]) -> Summed:
        from raypipe.train.step_terms import step_losses

        group_loss, terms = over_group_and_step(self.stage.loss)
        vectors = [self._outputs(model, block) for block in blocks]
        total = float(step_losses(terms, blocks, vectors).own_Q.double().sum())
        for block, vectors_PH in zip(blocks, vectors, strict=True):
            if group_loss is not None:
                value = loss_of(group_loss, score_matrix(vectors_PH, block), block)
                total += float(value) * block.queries
        return total, sum(block.queries for block in blocks)

    def _outputs(self, model: nn.Module, block: Block) -> torch.Tensor:
        return block_outputs(model, block, self.precision, next(model.parameters()).device)


def steps_of(rows: list[int], queries_per_step: int) -> list[list[int]]:
    """The rows in steps of so many queries or, as no small rest is left, some more.

    >>> [len(step) for step in steps_of(list(range(50)), 16)]
    [17, 17, 16]
    """
    steps = max(len(rows) // queries_per_step, 1)
    return [part.tolist() for part in np.array_split(np.array(rows), steps)]
