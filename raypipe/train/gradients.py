"""The gradient of one step, block by block; a block above the token budget is split further.

Shapes: Q queries, D documents per group (padded), T pairs, P passages (one per pair, or more).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raypipe.inference.scoring import autocast, to_tensors
from raypipe.losses.base import Known, Loss
from raypipe.train.batches import Block
from raypipe.train.parallel import bare, rank_and_world, sharded, without_sync

OnScores = Callable[[Block, Tensor], None]


def block_loss(
    model: nn.Module, block: Block, loss: Loss, precision: str, device: torch.device
) -> Tensor:
    """The mean loss over the block's queries."""
    return loss_of(loss, block_scores(model, block, precision, device), block)


def block_scores(model: nn.Module, block: Block, precision: str, device: torch.device) -> Tensor:
    """[Q, D] scores; 0 where there is no document."""
    scores_P = torch.zeros(block.passages, device=device)
    for chosen, inputs in block.batches:
        scores = _forward(model, inputs, precision, device)
        scores_P = scores_P.index_put((torch.from_numpy(chosen).to(device),), scores)
    return _matrix(scores_P, block)


def loss_of(loss: Loss, scores_QD: Tensor, block: Block) -> Tensor:
    """The mean loss over the block's queries, from their scores."""
    return loss(scores_QD, *_targets(block, scores_QD.device))


def query_losses(loss: Loss, scores_QD: Tensor, block: Block) -> list[float]:
    """The loss of each query of the block."""
    losses_Q = loss.each(scores_QD.detach(), *_targets(block, scores_QD.device))
    losses: list[float] = losses_Q.tolist()
    return losses


def _targets(block: Block, device: torch.device) -> tuple[Tensor, Tensor, Known]:
    """Targets, mask, and labels with preferences: what a loss takes beside the scores."""
    columns = (block.targets_QD, block.mask_QD, block.labels_QD)
    targets_QD, mask_QD, labels_QD = (torch.from_numpy(a).to(device) for a in columns)
    preferences_QDD = None
    if block.preferences_QDD is not None:
        preferences_QDD = torch.from_numpy(block.preferences_QDD).to(device)
    return targets_QD, mask_QD, Known(labels_QD, preferences_QDD)


@dataclass(frozen=True)
class Gradients:
    """Adds the gradient of a step's blocks to the model's parameters.

    A block that exceeds the budget is one large group, whose activations do not fit into memory.
    Gradient caching at the level of scores (Gao et al., arXiv 2101.06983) splits the block into its
    batches: it computes all scores without a graph, then the loss and its gradient by the scores,
    and then every batch again, with a graph and the random state of the first pass, so that dropout
    falls on the same places. The result is the gradient of the unsplit block, for a third more
    work.

    With weights spread over workers (FSDP2) every forward and backward pass is a collective. Then
    all blocks are computed this way, and workers with fewer batches add batches of no weight.
    """

    model: nn.Module
    loss: Loss
    precision: str
    budget: int
    """Tokens whose activations live at the same time."""
    scaler: torch.amp.GradScaler
    """Keeps fp16 gradients from vanishing; does nothing in other precisions."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def add(
        self, blocks: Sequence[Block], queries: int, on_scores: OnScores, spare: Block
    ) -> Tensor:
        """[loss, pairs, tokens] of this worker's blocks: its share of the step's sums.

        Args:
            queries: of the whole step, over all workers: each loss counts 1 / queries.
            on_scores: receives every block and its scores [Q, D] without a graph.
            spare: any block; a worker without blocks of its own joins the reduction with it, at no
                weight.
        """
        if sharded(self.model):
            return self._all_together(blocks, queries, on_scores, spare)
        totals = torch.zeros(3, dtype=torch.float64)
        for number, block in enumerate(blocks):
            last = number == len(blocks) - 1
            if block.tokens > self.budget and len(block.batches) > 1:
                loss = self._cached(block, queries, on_scores, last)
            else:
                with without_sync(self.model, enabled=not last):
                    scores_QD = block_scores(self.model, block, self.precision, self.device)
                    on_scores(block, scores_QD.detach())
                    loss = loss_of(self.loss, scores_QD, block)
                    self._weighted(loss, block, queries).backward()
            totals += _part(loss, block, queries)
        if not blocks and rank_and_world()[1] > 1:
            self._no_weight(block_scores(self.model, spare, self.precision, self.device))
        return totals

    def _no_weight(self, scores: Tensor) -> None:
        """A backward pass at no weight; scaled, as a scaler that never scaled cannot unscale."""
        self.scaler.scale(0.0 * scores.sum()).backward()

    def _weighted(self, loss: Tensor, block: Block, queries: int) -> Tensor:
        # DDP and FSDP average over workers; the mean is over all queries of the step
        return self.scaler.scale(loss * (block.queries / queries) * rank_and_world()[1])

    def _cached(self, block: Block, queries: int, on_scores: OnScores, last: bool) -> Tensor:
        scores_P, states = self._without_graph(block)
        loss, gradient_P = self._by_scores(scores_P, block, queries, on_scores)
        for number, (batch, state) in enumerate(zip(block.batches, states, strict=True)):
            final = last and number == len(block.batches) - 1
            with without_sync(self.model, enabled=not final):
                self._again(batch, state, gradient_P)
        return loss

    def _all_together(
        self, blocks: Sequence[Block], queries: int, on_scores: OnScores, spare: Block
    ) -> Tensor:
        """Like `_cached` for all blocks; every worker runs as many passes as the busiest."""
        totals = torch.zeros(3, dtype=torch.float64)
        count = torch.tensor(sum(len(block.batches) for block in blocks), device=self.device)
        most = count.clone()
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        missing = int(most - count)
        _, inputs = spare.batches[0]
        work = []
        for block in blocks:
            work.append((block, *self._without_graph(block)))
        with torch.no_grad():
            for _ in range(missing):
                _forward(self.model, inputs, self.precision, self.device)
        for block, scores_P, states in work:
            loss, gradient_P = self._by_scores(scores_P, block, queries, on_scores)
            for batch, state in zip(block.batches, states, strict=True):
                self._again(batch, state, gradient_P)
            totals += _part(loss, block, queries)
        for _ in range(missing):
            self._no_weight(_forward(self.model, inputs, self.precision, self.device))
        return totals

    def _without_graph(self, block: Block) -> tuple[Tensor, list[Any]]:
        """The scores of all passages, and the random state before each batch."""
        model = self.model if sharded(self.model) else bare(self.model)
        scores_P, states = torch.zeros(block.passages, device=self.device), []
        with torch.no_grad():
            for chosen, inputs in block.batches:
                states.append(random_state(self.device))
                scores = _forward(model, inputs, self.precision, self.device)
                scores_P[torch.from_numpy(chosen).to(self.device)] = scores
        return scores_P, states

    def _by_scores(
        self, scores_P: Tensor, block: Block, queries: int, on_scores: OnScores
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the gradient of the step's weighted loss by every passage's score."""
        scores_P = scores_P.requires_grad_()
        scores_QD = _matrix(scores_P, block)
        on_scores(block, scores_QD.detach())
        loss = loss_of(self.loss, scores_QD, block)
        weighted = self._weighted(loss, block, queries)
        (gradient_P,) = torch.autograd.grad(weighted, scores_P)
        return loss.detach(), gradient_P

    def _again(self, batch: Any, state: Any, gradient_P: Tensor) -> None:
        chosen, inputs = batch
        set_random_state(self.device, state)
        scores = _forward(self.model, inputs, self.precision, self.device)
        scores.backward(gradient_P[torch.from_numpy(chosen).to(self.device)])


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of the torch generators that dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(device: torch.device, state: dict[str, Tensor]) -> None:
    """Go back to a state that `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _forward(
    model: nn.Module, inputs: dict[str, Any], precision: str, device: torch.device
) -> Tensor:
    # a context per batch: autocast's cached casts of the weights carry no graph after no_grad
    with autocast(str(device), precision):
        scores: Tensor = model(**to_tensors(inputs, str(device))).logits[:, 0].float()
    return scores


def _matrix(scores_P: Tensor, block: Block) -> Tensor:
    scores_T = _best_passages(scores_P, block)
    rows, columns = (torch.from_numpy(a).to(scores_P.device) for a in block.cells_T)
    empty_QD = torch.zeros(block.mask_QD.shape, device=scores_P.device)
    return empty_QD.index_put((rows, columns), scores_T)


def _best_passages(scores_P: Tensor, block: Block) -> Tensor:
    """[T] the score of every pair's best passage, which alone gets the gradient.

    Of equal passages `max` along a dimension picks the first; `amax` would share the gradient.
    """
    if block.passages == block.pairs:
        return scores_P
    pair, column = (torch.from_numpy(a).to(scores_P.device) for a in block.cells_P)
    shape = (block.pairs, int(block.cells_P[1].max()) + 1)
    nothing = torch.full(shape, -math.inf, device=scores_P.device)
    best: Tensor = nothing.index_put((pair, column), scores_P).max(dim=1).values
    return best


def _part(loss: Tensor, block: Block, queries: int) -> Tensor:
    share = block.queries / queries
    return torch.tensor([float(loss.detach()) * share, block.pairs, block.tokens])
