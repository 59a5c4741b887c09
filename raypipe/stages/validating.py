"""How the workers of a stage validate: re-ranked lists, retrieval over a pool, the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from raypipe.inference.vector_pairs import pair_scorer
from raypipe.stages.loss_groups import of_loss
from raypipe.stages.pool_validation import PoolValidation
from raypipe.stages.validation import Validation, lists_of
from raypipe.storage.artifacts import Artifact
from raypipe.train.batches import Batcher
from raypipe.train.parallel import load_whole, sharded, whole_state
from raypipe.train.settings import LOSS
from raypipe.train.validation_loss import ValidationLoss


def validate_of(
    stage: Any,
    inputs: Mapping[str, Artifact],
    validation: Validation,
    template: Any,
    start: Path,
    device: str,
    tokens: int,
    batcher: Callable[[Mapping[str, Artifact]], Batcher],
) -> Callable[[nn.Module], dict[str, float]]:
    """The loop's `validate`.

    Args:
        tokens: padded tokens per forward pass.
        batcher: makes the batcher of the groups among these artifacts.
    """

    def scorer(module: nn.Module) -> Any:
        settings = (stage.truncation, tokens, stage.precision, device)
        return pair_scorer(stage.model, module, template, *settings)

    ranking: Validation | PoolValidation = validation
    if stage.pool is not None:
        out = stage.leaves_itself_out
        ranking = PoolValidation.of(validation, lists_of(inputs), stage.pool, out, device)
    loss = None
    if stage.selection == LOSS:
        loss = ValidationLoss(batcher(of_loss(inputs)), stage.config, stage.precision)

    def values(module: nn.Module) -> dict[str, float]:
        first = {} if loss is None else {LOSS: loss(module)}
        return {**first, **ranking.run(module, scorer)}

    copies: list[nn.Module] = []  # at most one

    def validate(bare: nn.Module) -> dict[str, float]:
        if not sharded(bare):
            return values(bare)
        # a sharded forward pass waits for all workers, but they score unlike numbers of batches
        if not copies:
            copies.append(stage.model.load(start, stage.seed, training=False, device=device))
        load_whole(copies[0], whole_state(bare))
        return values(copies[0])

    return validate
