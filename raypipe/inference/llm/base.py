"""What an LLM teacher asks and what an engine answers: prompts in, text or log-probabilities out.

An engine that loads a model (`in_actor`) is built inside a Ray actor and sees one chunk at a time;
one that calls a service is opened on the driver and parallelises itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import Field

from raypipe.artifacts import Artifact, Step
from raypipe.config import Config

if TYPE_CHECKING:
    from raypipe.resources import Context

CHARACTERS_PER_TOKEN = 4
"""Of English, for engines whose tokenizer is not here."""


@dataclass(frozen=True)
class Prompt:
    """A chat and, for questions with fixed answers, the answers."""

    messages: tuple[tuple[str, str], ...]
    """(role, content) in order; roles are system, user and assistant."""
    choices: tuple[str, ...] = ()
    """If given, the log-probability of each as the next token is wanted (yes/no, A/B)."""


@dataclass(frozen=True)
class Answer:
    """What came back for one prompt."""

    text: str = ""
    logprobs: Mapping[str, float] | None = None
    """Per choice, natural logarithm; None if the engine cannot give them."""
    error: str | None = None
    """The engine could not answer: the body or message, never a key."""


Generate = Callable[[Sequence[Prompt], int], list[Answer]]
"""Prompts and the most new tokens to answers in the order of the prompts."""


class Generator(Protocol):
    """What an engine gives: a `Generate` that also knows how long a text is."""

    def __call__(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Answer]:
        """One answer per prompt, in order; a failed request is an `Answer` with `error`."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`: exact with a tokenizer, else `estimate_tokens`."""
        ...


def estimate_tokens(text: str) -> int:
    """Tokens of a text where no tokenizer is at hand, rounded up."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


class Engine(Config):
    """Base of the engine configs. A subclass has a `type` and one of `build` and `open`."""

    in_actor: ClassVar[bool]
    """True: `build` is called inside a Ray actor. False: `open` is called on the driver."""
    uses_precision: ClassVar[bool] = True
    """Whether bf16 or fp32 changes the answers; if so it is in the digest."""

    context_tokens: int = Field(4096, ge=128)
    """Most tokens of a prompt with its answer; longer passages are cut to fit."""

    def check(self) -> None:
        """Whatever can be found wrong before work starts.

        Raises:
            ConfigError: a model, a package or a setting is missing.
        """

    def identity(self) -> dict[str, Any]:
        """What decides the answers, for the digest: model and revision, never a URL or a key."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """For the manifest alone: where the model was. No key, no password."""
        return {"model": getattr(self, "model", None)}

    @property
    def label(self) -> str:
        """Short name of the model, a part of paths: letters, digits, `-`, `_`, `.`."""
        name = str(getattr(self, "model", type(self).__name__))
        return re.sub(r"[^A-Za-z0-9_.-]", "-", name.rstrip("/").split("/")[-1])

    def needs(self) -> dict[str, Step]:
        """Steps whose artifacts hold the weights; empty for a service."""
        return {}

    def at(self, inputs: Mapping[str, Artifact]) -> Engine:
        """The same engine reading its weights from the artifacts of `needs`."""
        return self

    def build(self, device: str, precision: str) -> Generator:
        """The model, loaded; `in_actor` engines only.

        Args:
            device: "cuda" or "cpu".
            precision: "bf16" or "fp32".
        """
        raise NotImplementedError

    def open(self, context: Context) -> Generator:
        """A client, or a service started on the cluster; driver engines only."""
        raise NotImplementedError
