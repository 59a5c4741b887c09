"""What a stage reads beside its training where the validation loss selects its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raypipe.groups.kept_out import step_text_inputs
from raypipe.groups.training_groups import TrainingGroups
from raypipe.inference.tokens import Tokens
from raypipe.losses.base import Loss
from raypipe.losses.combination import over_group_and_step
from raypipe.storage.artifacts import Artifact, Step

OF_LOSS = "loss_"
"""What the names of a stage's inputs begin with that the validation loss reads."""


@dataclass(frozen=True)
class LossGroups:
    """Groups of validation queries, mined as a stage's training groups are."""

    groups: TrainingGroups
    query_tokens: Tokens
    doc_tokens: Tokens

    def steps(self, loss: Loss) -> dict[str, Step]:
        """What the validation loss reads, by the names that training groups have, prefixed."""
        texts = step_text_inputs(self.groups, []) if over_group_and_step(loss)[1] else {}
        named: dict[str, Step] = {**vars(self), **texts}
        return {f"{OF_LOSS}{name}": step for name, step in named.items()}


def of_loss(inputs: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The artifacts of `LossGroups.steps`, by the names that training groups have."""
    return {
        name.removeprefix(OF_LOSS): artifact
        for name, artifact in inputs.items()
        if name.startswith(OF_LOSS)
    }
