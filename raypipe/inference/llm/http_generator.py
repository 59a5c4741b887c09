"""Prompts sent through ray.data.llm to an HTTP server, its answers read and judged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from raypipe.config import ConfigError
from raypipe.inference.llm.base import Answer, Prompt, estimate_tokens
from raypipe.inference.llm.choices import choice_logprobs
from raypipe.inference.llm.http_client import AWAY, Client, Outcome, shown
from raypipe.inference.llm.pipeline import through

if TYPE_CHECKING:
    from raypipe.inference.llm.http import HttpEngine
    from raypipe.resources import Context

BATCH = 512
"""Prompts that one call of the actor holds; it has four at a time."""


class HttpGenerator:
    """One pipeline of Ray Data per call: about 2 s on 2 cores, whatever the number of prompts."""

    def __init__(self, engine: HttpEngine, client: Client, context: Context) -> None:
        self._engine = engine
        self._client = client
        self._context = context
        self._proved = False

    def __call__(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Answer]:
        """Answers in the order of the prompts; an `Answer.error` holds the server's words.

        Raises:
            ConfigError: the server refuses the key, or every prompt before it has answered any.
            RuntimeError: the server is not there (any more), after all tries.
        """
        if not prompts:
            return []
        bodies = [json.dumps(self._engine.body(prompt, max_new_tokens)) for prompt in prompts]
        outcomes = self._send(bodies)
        answers = [
            _read(outcome, prompt.choices, self._client)
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

    def _send(self, bodies: list[str]) -> list[Outcome]:
        from ray.data.llm import HttpRequestProcessorConfig, build_processor

        little = {"num_cpus": 0}  # they wait; where models hold every CPU, they still have to start
        processor = build_processor(
            HttpRequestProcessorConfig(
                url=self._engine.endpoint,
                batch_size=min(len(bodies), BATCH),
                concurrency=1,
                session_factory=self._client,
                http_request_stage=little,
            ),
            postprocess=_outcome_column,
            preprocess_map_kwargs=little,
            postprocess_map_kwargs=little,
        )
        try:
            rows = through(processor, [{"payload": body} for body in bodies], self._context)
        except Exception as error:  # Ray's, with the text of whatever went wrong in an actor
            found = self._client.clean({"why": f"{type(error).__name__}: {error}"})
            raise RuntimeError(
                f"the requests to {shown(self._engine.endpoint)} were not sent: {found}"
            ) from None
        return [json.loads(row["outcome"]) for row in rows]

    def _judge(self, outcomes: list[Outcome], answers: list[Answer]) -> None:
        """Tell a server that is wrong or gone from prompts that it cannot answer."""
        statuses = [outcome["status"] for outcome in outcomes]
        failed = [(o, a) for o, a in zip(outcomes, answers, strict=True) if a.error is not None]
        for outcome, answer in failed:
            if outcome["status"] == 401:
                raise refused(self._engine, str(answer.error))
        if all(s in AWAY for s in statuses) or not all(o["sent"] for o in outcomes):
            why = next(a.error for o, a in failed if o["status"] in AWAY and o["sent"])
            raise RuntimeError(
                f"no answer from {shown(self._engine.endpoint)} after {self._engine.retries + 1} "
                f"tries of a prompt ({why}); finished chunks are kept, run the same command again"
            )
        if len(failed) < len(answers):
            self._proved = True
            return
        if all(s < 500 and not (self._proved and s in (400, 413, 422)) for s in statuses):
            raise refused(self._engine, str(answers[0].error))


def _outcome_column(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"index": row["index"], "outcome": row["http_response"]["outcome"]}


def _read(outcome: Outcome, choices: Sequence[str], client: Client) -> Answer:
    """The answer in a response of any shape."""
    try:
        (choice, *_) = json.loads(outcome["body"])["choices"]
        text = choice["message"].get("content") or ""
        if outcome["status"] != 200 or not isinstance(text, str):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        return Answer(error=client.clean(outcome))
    return Answer(text, _logprobs_in(choice, choices) if choices else None)


def _logprobs_in(choice: Mapping[str, Any], choices: Sequence[str]) -> dict[str, float] | None:
    try:
        top = choice["logprobs"]["content"][0]["top_logprobs"]
        return choice_logprobs([(str(t["token"]), float(t["logprob"])) for t in top], choices)
    except (KeyError, IndexError, TypeError, ValueError):  # the server gives none
        return None


def refused(engine: HttpEngine, words: str) -> ConfigError:
    status = words.partition(":")[0]
    remedy = {
        "401": "set api_key_env to the variable that holds a valid key",
        "403": "set api_key_env to the variable that holds a key with this right",
        "404": "correct the engine's url or model",
    }.get(status, "correct the engine's url, model, extra_body or context_tokens")
    return ConfigError(f"engine http: {shown(engine.endpoint)} refused: {words}; {remedy}")
