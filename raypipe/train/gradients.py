"""The gradient of one step, block by block; a block above the token budget is split further.

Shapes: Q queries, D documents per group (padded), T pairs, P passages (one per pair, or more; of a
bi-encoder: texts), B passages of a batch, H numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raypipe.inference.scoring import autocast
from raypipe.inference.transfer import on_device, to_tensors
from raypipe.losses.base import Loss
from raypipe.losses.combination import StepTerm, over_group_and_step
from raypipe.train.batches import Block
from raypipe.train.block_model import BlockModel, OnScores
from raypipe.train.objective import Objective
from raypipe.train.parallel import bare, rank_and_world, sharded, without_sync
from raypipe.train.score_matrix import fitted, score_matrix


def block_loss(
    model: nn.Module, block: Block, loss: Loss, precision: str, device: torch.device
) -> Tensor:
    """The mean loss over the block's queries."""
    return loss_of(loss, block_scores(model, block, precision, device), block)


def block_scores(model: nn.Module, block: Block, precision: str, device: torch.device) -> Tensor:
    """[Q, D] scores; 0 where there is no document."""
    return score_matrix(block_outputs(model, block, precision, device), block)


def block_outputs(model: nn.Module, block: Block, precision: str, device: torch.device) -> Tensor:
    """What the model gives for all P passages: scores [P], or vectors [P, H]."""
    outputs_P = None
    for chosen, inputs in block.batches:
        outputs = _forward(model, inputs, precision, device)
        if outputs_P is None:
            outputs_P = outputs.new_zeros(block.passages, *outputs.shape[1:])
        outputs_P = outputs_P.index_put((on_device(chosen, device),), outputs)
    assert outputs_P is not None, "a block has batches"
    return outputs_P


def loss_of(loss: Loss, scores_QD: Tensor, block: Block) -> Tensor:
    """The mean loss over the block's queries, from their scores."""
    return loss(scores_QD, *fitted(block, scores_QD.device))


def query_losses(loss: Loss, scores_QD: Tensor, block: Block) -> list[float]:
    """The loss of each query of the block."""
    losses_Q = loss.each(scores_QD.detach(), *fitted(block, scores_QD.device))
    losses: list[float] = losses_Q.tolist()
    return losses


@dataclass(frozen=True)
class Gradients:
    """Adds the gradient of a step's blocks to the model's parameters.

    A block that exceeds the budget is one large group, whose activations do not fit into memory.
    Gradient caching at the level of what the model gives, scores or vectors (Gao et al., arXiv
    2101.06983), splits the block into its batches: it computes all of them without a graph, then
    the loss and its gradient by them, and then every batch again, with a graph and the random state
    of the first pass, so that dropout falls on the same places. The result is the gradient of the
    unsplit block, for a third more work.

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
    objective: Objective | None = None
    """What is minimised instead of the loss over scores. It reads a block as a whole: no block is
    split, and weights are not spread over workers."""
    texts: bool = False
    """Whether the model gives vectors of texts, which are counted beside the pairs."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def add(
        self, blocks: Sequence[Block], queries: int, on_scores: OnScores, spare: Block
    ) -> Tensor:
        """[loss, pairs, tokens, `further`] of this worker's blocks: its share of the step's sums.

        Args:
            queries: of the whole step, over all workers: each loss counts 1 / queries.
            on_scores: receives every block and its scores [Q, D] without a graph.
            spare: any block; a worker without blocks of its own joins the reduction with it, at no
                weight.
        """
        group_loss, terms = over_group_and_step(self.loss)
        if terms:
            totals, masked = self._over_step(group_loss, terms, blocks, queries, on_scores)
            return self._counted(totals, blocks, [masked])
        if sharded(self.model):
            return self._counted(self._all_together(blocks, queries, on_scores, spare), blocks)
        return self._counted(self._by_blocks(blocks, queries, on_scores, spare), blocks)

    @property
    def further(self) -> tuple[str, ...]:
        """What `add` counts beside loss, pairs and tokens, by its name in the history."""
        terms = () if self.objective is None else self.objective.terms
        texts = ("texts",) if self.texts else ()
        masked = ("masked",) if over_group_and_step(self.loss)[1] else ()
        return (*(f"terms/{name}" for name in terms), *texts, *masked)

    @property
    def figures(self) -> int:
        """How many numbers `add` returns."""
        return 3 + len(self.further)

    def _counted(
        self, totals: Tensor, blocks: Sequence[Block], masked: Sequence[int] = ()
    ) -> Tensor:
        texts = [sum(block.passages for block in blocks)] if self.texts else []
        return torch.cat([totals, torch.tensor([*texts, *masked], dtype=torch.float64)])

    def _by_blocks(
        self, blocks: Sequence[Block], queries: int, on_scores: OnScores, spare: Block
    ) -> Tensor:
        """Each block's gradient after the other's; arguments as for `add`."""
        values: list[Sequence[Tensor | float]] = []
        for number, block in enumerate(blocks):
            last = number == len(blocks) - 1
            if self.objective is not None:
                values.append(self._by_objective(self.objective, block, queries, on_scores, last))
                continue
            if block.tokens > self.budget and len(block.batches) > 1:
                loss = self._cached(block, queries, on_scores, last)
            else:
                with without_sync(self.model, enabled=not last):
                    scores_QD = block_scores(self.model, block, self.precision, self.device)
                    on_scores(block, scores_QD.detach())
                    loss = loss_of(self.loss, scores_QD, block)
                    self._weighted(loss, block, queries).backward()
            values.append([loss.detach()])
        if not blocks and rank_and_world()[1] > 1:
            self._no_weight(block_scores(self.model, spare, self.precision, self.device))
        terms = 0 if self.objective is None else len(self.objective.terms)
        return _totals(values, blocks, queries, 3 + terms)

    def _by_objective(
        self, objective: Objective, block: Block, queries: int, on_scores: OnScores, last: bool
    ) -> list[Tensor | float]:
        """Loss and terms of one block, whose gradient is added."""
        with without_sync(self.model, enabled=not last):
            model = BlockModel(self.model, self.precision, on_scores)
            loss, terms = objective.checked(model, block, self.loss)
            self._weighted(loss, block, queries).backward()
        figures = [loss, *(terms[name] for name in objective.terms)]
        return [f.detach() if isinstance(f, Tensor) else f for f in figures]

    def _no_weight(self, scores: Tensor) -> None:
        """A backward pass at no weight; scaled, as a scaler that never scaled cannot unscale."""
        self.scaler.scale(0.0 * scores.sum()).backward()

    def _weighted(self, loss: Tensor, block: Block, queries: int) -> Tensor:
        # DDP and FSDP average over workers; the mean is over all queries of the step
        return self.scaler.scale(loss * (block.queries / queries) * rank_and_world()[1])

    def _cached(self, block: Block, queries: int, on_scores: OnScores, last: bool) -> Tensor:
        outputs_P, states = self._without_graph(block)
        loss, gradient_P = self._by_outputs(outputs_P, block, queries, on_scores)
        for number, (batch, state) in enumerate(zip(block.batches, states, strict=True)):
            final = last and number == len(block.batches) - 1
            with without_sync(self.model, enabled=not final):
                self._again(batch, state, gradient_P)
        return loss

    def _over_step(
        self,
        group_loss: Loss | None,
        terms: Sequence[StepTerm],
        blocks: Sequence[Block],
        queries: int,
        on_scores: OnScores,
    ) -> tuple[Tensor, int]:
        """All vectors of the step, without a graph unless the worker's blocks are within the budget
        together; the losses; then, where there was no graph, every batch again.

        Also returns how many documents are masked. Every worker has blocks: a step has at least as
        many queries as there are workers.
        """
        from raypipe.train.step_terms import step_losses

        states: Sequence[list[Any]] = ()
        fits = sum(block.tokens for block in blocks) <= self.budget
        if fits:
            leaves = [block_outputs(self.model, b, self.precision, self.device) for b in blocks]
        else:
            given, states = zip(*(self._without_graph(block) for block in blocks), strict=True)
            leaves = [outputs_P.requires_grad_() for outputs_P in given]
        scores = [score_matrix(leaf, block) for leaf, block in zip(leaves, blocks, strict=True)]
        losses_Q, own_Q, masked = step_losses(terms, blocks, leaves)
        total, values = losses_Q.sum() / queries, []
        own = own_Q.split([block.queries for block in blocks])
        for block, scores_QD, step_Q in zip(blocks, scores, own, strict=True):
            on_scores(block, scores_QD.detach())
            value = step_Q.detach().mean()
            if group_loss is not None:
                loss = loss_of(group_loss, scores_QD, block)
                total, value = total + loss * (block.queries / queries), value + loss.detach()
            values.append([value])
        # every worker has the losses of all queries, and DDP takes the mean over workers
        scaled = self.scaler.scale(total * rank_and_world()[1])
        if fits:
            scaled.backward()
            return _totals(values, blocks, queries, 3), masked
        gradients = torch.autograd.grad(scaled, leaves)
        work = [
            (batch, state, gradient_P)
            for block, of_batches, gradient_P in zip(blocks, states, gradients, strict=True)
            for batch, state in zip(block.batches, of_batches, strict=True)
        ]
        for number, (batch, state, gradient_P) in enumerate(work, start=1):
            with without_sync(self.model, enabled=number < len(work)):
                self._again(batch, state, gradient_P)
        return _totals(values, blocks, queries, 3), masked

    def _all_together(
        self, blocks: Sequence[Block], queries: int, on_scores: OnScores, spare: Block
    ) -> Tensor:
        """Like `_cached` for all blocks; every worker runs as many passes as the busiest."""
        losses: list[Sequence[Tensor | float]] = []
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
        for block, outputs_P, states in work:
            loss, gradient_P = self._by_outputs(outputs_P, block, queries, on_scores)
            for batch, state in zip(block.batches, states, strict=True):
                self._again(batch, state, gradient_P)
            losses.append([loss])
        for _ in range(missing):
            self._no_weight(_forward(self.model, inputs, self.precision, self.device))
        return _totals(losses, blocks, queries, 3)

    def _without_graph(self, block: Block) -> tuple[Tensor, list[Any]]:
        """What the model gives for all passages, and the random state before each batch."""
        model = self.model if sharded(self.model) else bare(self.model)
        outputs_P, states = None, []
        with torch.no_grad():
            for chosen, inputs in block.batches:
                states.append(random_state(self.device))
                outputs = _forward(model, inputs, self.precision, self.device)
                if outputs_P is None:
                    outputs_P = outputs.new_zeros(block.passages, *outputs.shape[1:])
                outputs_P[on_device(chosen, self.device)] = outputs
        assert outputs_P is not None, "a block has batches"
        return outputs_P, states

    def _by_outputs(
        self, outputs_P: Tensor, block: Block, queries: int, on_scores: OnScores
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the gradient of the step's weighted loss by what the model gave."""
        outputs_P = outputs_P.requires_grad_()
        scores_QD = score_matrix(outputs_P, block)
        on_scores(block, scores_QD.detach())
        loss = loss_of(self.loss, scores_QD, block)
        weighted = self._weighted(loss, block, queries)
        (gradient_P,) = torch.autograd.grad(weighted, outputs_P)
        return loss.detach(), gradient_P

    def _again(self, batch: Any, state: Any, gradient_P: Tensor) -> None:
        chosen, inputs = batch
        set_random_state(self.device, state)
        outputs = _forward(self.model, inputs, self.precision, self.device)
        outputs.backward(gradient_P[on_device(chosen, self.device)])


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
    """Scores [B] of a cross-encoder, or vectors [B, H] of a bi-encoder, in float32."""
    # a context per batch: autocast's cached casts of the weights carry no graph after no_grad
    with autocast(device, precision):
        output = model(**to_tensors(inputs, device))
        given: Tensor = output if isinstance(output, Tensor) else output.logits[:, 0]
    return given.float()


def _totals(
    values: Sequence[Sequence[Tensor | float]], blocks: Sequence[Block], queries: int, figures: int
) -> Tensor:
    """[loss, pairs, tokens, terms] of all blocks; here a step waits for the device, once.

    Args:
        values: of every block, its loss and the objective's terms.
    """
    totals = torch.zeros(figures, dtype=torch.float64)
    for number, block in zip(_numbers(values), blocks, strict=True):
        share = block.queries / queries
        loss, *terms = [value * share for value in number]
        totals += torch.tensor([loss, block.pairs, block.tokens, *terms], dtype=torch.float64)
    return totals


def _numbers(values: Sequence[Sequence[Tensor | float]]) -> list[list[float]]:
    """The values as numbers, by one copy from their device."""
    tensors = [value for row in values for value in row if isinstance(value, Tensor)]
    known = iter(
        torch.stack([tensor.double().reshape(()) for tensor in tensors]).tolist() if tensors else []
    )
    return [[next(known) if isinstance(v, Tensor) else float(v) for v in row] for row in values]
