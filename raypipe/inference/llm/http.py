"""An LLM behind HTTP: requests to any server with OpenAI's chat completions, and their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from raypipe.config import NOT_SEMANTIC, ConfigError
from raypipe.inference.llm.api_keys import check_server
from raypipe.inference.llm.base import (
    Answer,
    Engine,
    Generator,
    Prompt,
    backbone_tokenizer,
    choice_answer,
    estimate_tokens,
)
from raypipe.inference.llm.http_client import Client, HttpOutcome, one_line
from raypipe.inference.llm.server_options import ServerOptions
from raypipe.inference.llm.thinking import THINKING
from raypipe.models.backbone import Backbone
from raypipe.storage.address import Address
from raypipe.tables.json_text import parse_json

if TYPE_CHECKING:
    from raypipe.resources import Context

CHAT = "/chat/completions"


class HttpEngine(ServerOptions, Engine):
    """An OpenAI-compatible server: a hosted API, `vllm serve`, llama.cpp, `transformers serve`."""

    type: Literal["http"] = "http"
    in_actor: ClassVar[bool] = False
    uses_precision: ClassVar[bool] = False

    url: Annotated[Address, NOT_SEMANTIC]
    """Address of /v1/chat/completions; a base such as http://host:8000/v1 is completed."""
    model: str = Field(min_length=1)
    """The server's name of the model."""
    revision: str | None = Field(None, min_length=1)
    """Your own name of what the server serves under that name, to tell one from another; never
    sent."""
    temperature: float | None = Field(0.0, ge=0)
    """None leaves the field out, for models that refuse it. Synthetic queries have their own."""
    top_logprobs: int | None = Field(20, ge=1, le=20)
    """Alternatives asked for with a prompt that has choices; some servers give at most 5. None
    asks for words alone, for servers that refuse the question (most just ignore it)."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """OpenAI's reasoning models want max_completion_tokens."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request, e.g. `{seed: 1}`; null takes a field out. No secrets here."""
    tokenizer: str | None = None
    """Backbone (hub name, directory, package:NAME/folder) whose tokenizer counts tokens. None
    counts four characters as one."""

    whose: ClassVar[str] = "engine http"
    remedies: ClassVar[Mapping[str, str]] = {
        "404": "correct the engine's url or model",
        "": "correct the engine's url, model, extra_body or context_tokens",
    }

    @model_validator(mode="after")
    def _no_secret(self) -> Self:
        form = "http://HOST:PORT/v1/chat/completions"
        check_server(str(self.url), self.api_key_env, form)  # masked, as a tracked recipe's is
        return self

    @property
    def endpoint(self) -> Address:
        return self._beside(CHAT)

    def _beside(self, path: str) -> Address:
        """An address of the server's API."""
        parts = urlsplit(self.url.reveal())
        base = parts.path.rstrip("/").removesuffix(CHAT)
        return Address(parts._replace(path=base + path, fragment="").geturl())

    def check(self) -> None:
        """The key is there and the tokenizer loads.

        Raises:
            ConfigError: one of them does not.
        """
        super().check()
        if self.tokenizer is not None:
            self.load_tokenizer()

    def identity(self) -> dict[str, Any]:
        """Model and sampling; a server names no revision of its model, so the recipe may."""
        counted = Backbone(self.tokenizer).tokenizer_identity if self.tokenizer else None
        names = ("type", "model", "temperature", "top_logprobs", "extra_body", "context_tokens")
        chosen = {} if self.revision is None else {"revision": self.revision}
        return {**{name: getattr(self, name) for name in names}, "tokenizer": counted, **chosen}

    def facts(self) -> dict[str, Any]:
        """With the server's address, without its query, which may hold what is secret."""
        return {**super().facts(), "url": self.endpoint.place}

    def body(self, prompt: Prompt, max_new_tokens: int) -> dict[str, Any]:
        """The request for one prompt.

        Choices do not cut it to one token: a server without log-probabilities answers in words.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": role, "content": text} for role, text in prompt.messages],
            "temperature": self.temperature,
            self.max_tokens_field: max_new_tokens,
        }
        if prompt.sampling is not None and self.temperature is not None:
            body |= {"temperature": prompt.sampling.temperature, "top_p": prompt.sampling.top_p}
        if prompt.choices and self.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return {name: v for name, v in {**body, **self.extra_body}.items() if v is not None}

    def open(self, context: Context) -> Generator:
        """A generator, after the server has answered a first request.

        Raises:
            ConfigError: no server there, a certificate that does not fit, or a key that is refused.
        """
        return HttpGenerator(self, self.connect(self._beside("/models")))

    def load_tokenizer(self) -> Any:
        """The tokenizer that counts tokens.

        Raises:
            ConfigError: there is none in `tokenizer`.
        """
        try:
            return backbone_tokenizer(str(self.tokenizer))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"engine http: no tokenizer can be loaded from {self.tokenizer}: "
                f"{one_line(str(error))}; leave `tokenizer` out to count 4 characters as a token"
            ) from None


class HttpGenerator:
    """Sends prompts to the server of an engine and reads what comes back."""

    def __init__(self, engine: HttpEngine, client: Client) -> None:
        self._engine = engine
        self._client = client
        self._has_answered = False

    def __call__(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Answer]:
        """Answers in the order of the prompts; an `Answer.error` holds the server's words.

        Raises:
            ConfigError: the server refuses the key, or every prompt before it has answered any.
            RuntimeError: the server is not there (any more), after all tries.
        """
        if not prompts:
            return []
        bodies = [self._engine.body(prompt, max_new_tokens) for prompt in prompts]
        outcomes = self._client.post_all(self._engine.endpoint.reveal(), bodies)
        answers = [
            self._read(outcome, prompt.choices)
            for outcome, prompt in zip(outcomes, prompts, strict=True)
        ]
        self._judge(outcomes, answers)
        return answers

    def count_tokens(self, text: str) -> int:
        """Exact with a `tokenizer`, special tokens aside; else a fourth of the characters."""
        if self._tokenizer is None:
            return estimate_tokens(text)
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _tokenizer(self) -> Any:
        return self._engine.load_tokenizer() if self._engine.tokenizer else None

    def _read(self, outcome: HttpOutcome, choices: Sequence[str]) -> Answer:
        """The answer in a response of any shape."""
        try:
            (choice, *_) = parse_json(outcome.body, repeats=True)["choices"]
            text = choice["message"].get("content") or ""
            thought = _thought(choice["message"])
            if outcome.status != 200 or not isinstance(text, str):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            return Answer(error=self._client.clean(outcome))
        if thought:  # the server has parted it from the answer, and its first token is the first
            return Answer(text or f"{next(iter(THINKING))}{thought}")
        return choice_answer(text, _likeliest(choice), choices) if choices else Answer(text)

    def _judge(self, outcomes: Sequence[HttpOutcome], answers: Sequence[Answer]) -> None:
        """Tell a server that is wrong or gone from prompts that it cannot answer."""
        failed = [(o, a) for o, a in zip(outcomes, answers, strict=True) if a.error is not None]
        for outcome, answer in failed:
            if outcome.status == 401:
                raise self._engine.refusal(str(answer.error))
        if all(o.away for o in outcomes) or not all(o.sent for o in outcomes):
            why = next(a.error for o, a in failed if o.away and o.sent)
            raise self._engine.no_answer(str(why))
        if len(failed) < len(answers):
            self._has_answered = True
            return
        about_prompts = (400, 413, 422) if self._has_answered else ()
        if all(o.status is not None and o.status < 500 for o in outcomes) and not any(
            o.status in about_prompts for o in outcomes
        ):
            raise self._engine.refusal(str(answers[0].error))


def _thought(message: Mapping[str, Any]) -> str:
    """What the model thought, where the server gives it beside the answer."""
    fields = (message.get(name) for name in ("reasoning_content", "reasoning"))
    return next((text for text in fields if isinstance(text, str) and text.strip()), "")


def _likeliest(choice: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The likeliest first tokens; none where the server gives no log-probabilities."""
    try:
        top = choice["logprobs"]["content"][0]["top_logprobs"]
        return [(str(t["token"]), float(t["logprob"])) for t in top]
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return []
