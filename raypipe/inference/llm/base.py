"""What an LLM teacher asks and what an engine answers: prompts in, text or log-probabilities out.

A prompt may have choices (yes or no, A or B): `choice_logprobs` and `chosen` read which choice an
answer is, from the log-probabilities of its first token or from its words.

An engine that loads a model (`in_actor`) is built inside a Ray actor and sees one chunk at a time;
one that calls a service is opened on the driver and parallelises itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import Field

from raypipe.config import Config
from raypipe.inference.llm.thinking import (
    begins_with_thinking,
    cut_in_thinking,
    without_thinking,
)
from raypipe.models.backbone import Backbone
from raypipe.storage.artifacts import Artifact, Step

if TYPE_CHECKING:
    from raypipe.resources import Context


CHARACTERS_PER_TOKEN = 4
"""Of English, for engines whose tokenizer is not here."""
CHOICE_TOKENS = 8
"""Most new tokens of an answer to a question with choices, where it comes as text: "Passage A"."""


@dataclass(frozen=True)
class Sampling:
    """How a text is drawn where it is not the likeliest one."""

    temperature: float
    """Above 0; 1 is the model's own distribution."""
    top_p: float
    """Of the likeliest tokens, those that together have this probability; 1 takes all."""
    seed: int
    """Of this text alone: no other prompt of the batch changes it. A server may not know seeds."""
    one_line: bool = False
    """Whether the text may end with its first line, to save tokens; it need not."""


@dataclass(frozen=True)
class Prompt:
    """A chat and, for questions with fixed answers, the answers."""

    messages: tuple[tuple[str, str], ...]
    """(role, content) in order; roles are system, user and assistant."""
    choices: tuple[str, ...] = ()
    """If given, the log-probability of each as the next token is wanted (yes/no, A/B)."""
    sampling: Sampling | None = None
    """None is the engine's own way: the likeliest text, or its temperature."""


@dataclass(frozen=True)
class Answer:
    """What came back for one prompt."""

    text: str = ""
    logprobs: Mapping[str, float] | None = None
    """Per choice, natural logarithm; None if the engine cannot give them."""
    error: str | None = None
    """The engine could not answer: the body or message, never a key."""
    clipped: bool = False
    """A choice was not among the likeliest tokens: its log-probability is an upper bound."""


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
        """Refuse what is wrong before work starts.

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


def backbone_tokenizer(source: str) -> Any:
    """The tokenizer of a `Backbone`, that of a hub model at the revision in the digest."""
    from transformers import AutoTokenizer

    backbone = Backbone(source)
    pinned = {"revision": backbone.revision} if backbone.folder is None else {}
    return AutoTokenizer.from_pretrained(
        backbone.folder or backbone.source, trust_remote_code=False, **pinned
    )


def choice_logprobs(
    top: Iterable[tuple[str, float]], choices: Sequence[str]
) -> dict[str, float] | None:
    """Log-probability of each choice as the next token, from the most likely first tokens.

    Tokens count without the blanks around them, in their case: "Yes" is the sum of "Yes" and
    " Yes". A choice that is not among them gets the lowest there, which is an upper bound of what
    one token of it can have. None if no choice is among them. NaN and infinity are no values.
    """
    pairs = [(_plain(token), value) for token, value in top if value < math.inf]
    values_by_choice = {c: [value for token, value in pairs if token == c] for c in choices}
    if not any(values_by_choice.values()):
        return None
    lowest = min(value for _, value in pairs)
    return {c: _log_sum(values) if values else lowest for c, values in values_by_choice.items()}


def choice_answer(text: str, top: Iterable[tuple[str, float]], choices: Sequence[str]) -> Answer:
    """An answer from a text and the most likely first tokens with their log-probabilities.

    Where the text begins with thinking, its first token is no answer: the text alone counts.
    """
    pairs = list(top)
    logprobs = None if begins_with_thinking(text) else choice_logprobs(pairs, choices)
    missing = set(choices) - {_plain(token) for token, _ in pairs}
    return Answer(text, logprobs, clipped=logprobs is not None and bool(missing))


def _plain(token: str) -> str:
    return token.strip(" \t\r\n▁Ġ")


def _log_sum(values: list[float]) -> float:
    if (high := max(values)) == -math.inf:
        return high
    return high + math.log(sum(math.exp(value - high) for value in values))


def chosen(text: str, choices: Sequence[str]) -> str | None:
    """The choice that a text answer names first, or None; thinking is not part of the answer.

    Words are found in any case; of letters only the capital, since "a" is an article.
    """
    if cut_in_thinking(text):
        return None
    text = without_thinking(text)
    positions = {}
    for choice in choices:
        flags = re.IGNORECASE if len(choice) > 1 else re.NOFLAG
        if match := re.search(rf"\b{re.escape(choice)}\b", text, flags):
            positions[choice] = match.start()
    return min(positions, key=lambda choice: positions[choice]) if positions else None
