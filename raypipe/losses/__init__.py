"""What a ranker is trained to minimise. Adding a loss = one class + its name in `AnyLoss`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raypipe.losses.base import Loss, Targets, TeacherKind
from raypipe.losses.listwise import InfoNCE
from raypipe.losses.pairwise import MarginMSE, RankNet

AnyLoss = Annotated[InfoNCE | MarginMSE | RankNet, Field(discriminator="type")]

__all__ = ["AnyLoss", "InfoNCE", "Loss", "MarginMSE", "RankNet", "Targets", "TeacherKind"]
