"""Objectives that read more of the model than scores, such as its hidden states."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from torch import Tensor

from raypipe.config import Config
from raypipe.losses.base import Loss
from raypipe.plugins.choice import OrPlugIn

if TYPE_CHECKING:  # settings of a training are read without its libraries
    from raypipe.train.batches import Block
    from raypipe.train.block_model import BlockModel


class Objective(Config):
    """What a stage minimises where scores are not enough: `__call__` reads the model.

    The stage's `loss` still says which column is fitted, and what a group must have. All
    activations of a block live at once, at least those of one whole group; an objective goes with
    neither `filtering` nor fsdp, and has no weights of its own.
    """

    type: str
    """The class's name in recipes."""

    terms: ClassVar[tuple[str, ...]] = ()
    """Names of the values to log, each as `terms/NAME`."""

    @abstractmethod
    def __call__(
        self, model: BlockModel, block: Block, loss: Loss
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(mean over the block's queries of what is minimised, value of each of `terms`).

        Args:
            loss: the stage's.
        """

    def checked(
        self, model: BlockModel, block: Block, loss: Loss
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The call's result.

        Raises:
            ValueError: it is no scalar with a gradient, or has other terms than `terms`.
        """
        value, terms = self(model, block, loss)
        if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
            found = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value)
            raise ValueError(
                f"objective {self.type}: expected a scalar tensor with a gradient, found {found}; "
                "return the mean over the block's queries"
            )
        if set(terms) != set(self.terms):
            raise ValueError(
                f"objective {self.type}: expected the terms {list(self.terms)}, found "
                f"{list(terms)}; name those in `terms` that are returned"
            )
        return value, terms


AnyObjective = Annotated[Objective, OrPlugIn("objective", Objective, only=True)]
"""Every objective is a plug-in: what scores suffice for is a loss."""
