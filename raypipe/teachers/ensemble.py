"""Several teachers as one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from raypipe.artifacts import Step
from raypipe.config import Config, ConfigError, nearest
from raypipe.inference.combine import CombinedScores, Member, Normalise
from raypipe.inference.lists import Lists
from raypipe.teachers.cross_encoder import CrossEncoderTeacher
from raypipe.teachers.llm import ListwiseLLM, PairwiseLLM, PointwiseLLM
from raypipe.teachers.model import BiEncoderTeacher, Fusion
from raypipe.teachers.published import (
    DuoScores,
    EnsembleScores,
    MonoScores,
    RankGptFile,
    RunFile,
)

Single = Annotated[
    BiEncoderTeacher
    | CrossEncoderTeacher
    | DuoScores
    | EnsembleScores
    | Fusion
    | ListwiseLLM
    | MonoScores
    | PairwiseLLM
    | PointwiseLLM
    | RankGptFile
    | RunFile,
    Field(discriminator="type"),
]
"""What an ensemble can consist of: a new teacher's name goes here."""

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Ensemble(Config):
    """The weighted mean of several teachers (Hofstaetter et al. 2020: three cross-encoders)."""

    type: Literal["ensemble"] = "ensemble"
    teachers: dict[str, Single] = Field(min_length=2)
    """By name."""
    normalise: Normalise = "z"
    """What each teacher's values of a query go through first: z-scores, min-max, or nothing, which
    is right for models with one scale of logits only."""
    weights: dict[str, Weight] | None = None
    """By teacher's name; a teacher that is not named weighs 1."""

    values: ClassVar[Literal["score", "rank"]] = "score"

    @property
    def negative(self) -> bool:
        """Some values are surely below 0, so that they are no gains."""
        return self.normalise == "z"

    @model_validator(mode="after")
    def _names_fit(self) -> Ensemble:
        for name in self.weights or {}:
            if name not in self.teachers:
                near = nearest(name, self.teachers)
                raise ValueError(f"weights: there is no teacher {name!r}{near}")
        return self

    @property
    def label(self) -> str:
        return f"ensemble of {', '.join(self.teachers)}"

    @property
    def needs_lists(self) -> bool:
        """Scales are taken over whole lists, so that every group of a query has the same."""
        return self.normalise != "none" or any(t.needs_lists for t in self.teachers.values())

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that combines; the teachers' own values are steps that others can share."""
        weights = self.weights or {}
        members = {
            name: Member(teacher.scores(lists, precision), teacher.values, weights.get(name, 1.0))
            for name, teacher in self.teachers.items()
        }
        return CombinedScores(lists, members, self.normalise)

    def check(self) -> None:
        """Everything that the teachers need is there.

        Raises:
            ConfigError: it is not; the message begins with the teacher's name.
        """
        for name, teacher in self.teachers.items():
            try:
                teacher.check()
            except ConfigError as error:
                raise ConfigError(f"teachers.{name}: {error}") from None
