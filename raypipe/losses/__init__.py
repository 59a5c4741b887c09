"""What a ranker is trained to minimise. Adding a loss = one class + its name in `SingleLoss`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raypipe.losses.base import Loss
from raypipe.losses.combination import SingleLoss, WeightedSum
from raypipe.plugins.choice import OrPlugIn

AnyLoss = Annotated[SingleLoss | WeightedSum, Field(discriminator="type"), OrPlugIn("loss", Loss)]
