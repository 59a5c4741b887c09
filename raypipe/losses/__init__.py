"""What a ranker is trained to minimise. Adding a loss = one class + its name in `SingleLoss`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raypipe.losses.base import Known, Loss, Targets, TeacherKind
from raypipe.losses.combination import SingleLoss, Term, WeightedSum
from raypipe.losses.listwise import KL, InfoNCE, ListMLE, ListNet
from raypipe.losses.pairwise import Hinge, RankNet
from raypipe.losses.pointwise import BCE, MSE
from raypipe.losses.preference import MarginMSE, PairKL, pairwise_kl
from raypipe.losses.rank_based import AdrMSE, ApproxNDCG, Gain, Lambda

AnyLoss = Annotated[SingleLoss | WeightedSum, Field(discriminator="type")]

__all__ = [
    "BCE",
    "KL",
    "MSE",
    "AdrMSE",
    "AnyLoss",
    "ApproxNDCG",
    "Gain",
    "Hinge",
    "InfoNCE",
    "Known",
    "Lambda",
    "ListMLE",
    "ListNet",
    "Loss",
    "MarginMSE",
    "PairKL",
    "RankNet",
    "SingleLoss",
    "Targets",
    "TeacherKind",
    "Term",
    "WeightedSum",
    "pairwise_kl",
]
