"""The HTTP client: limits, retries, pauses and giving up, against a server that plays along."""

from __future__ import annotations

import gzip
import signal
import threading
import zlib
from typing import Any

import pytest
from chat_server import Server, always, close, error, prompt_in, running
from servers_here import pauses_of_clients, several

from raypipe.inference.llm import http_client
from raypipe.inference.llm.http_client import NOT_SENT, Client, HttpOutcome

KEY = "sk-test-0123456789-secret"


@pytest.fixture
def serve():
    with several(running) as start:
        yield start


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    return pauses_of_clients(monkeypatch)


def client(key: str | None = None, **limits: Any) -> Client:
    defaults = {"concurrency": 8, "requests_per_second": None, "retries": 0}
    return Client(key, **{**defaults, "retry_wait_s": 0, "timeout_s": 20, **limits})


def post(sender: Client, server: Server, *texts: str) -> list[HttpOutcome]:
    bodies = [{"messages": [{"content": text}]} for text in texts]
    return sender.post_all(f"{server.url}/chat/completions", bodies)


def test_outcomes_stand_in_the_order_of_the_bodies(serve):
    """The first is answered last: when every other has been."""
    texts = ["slow", *"abcdef"]

    def play(handler, body, number):
        if prompt_in(body) == "slow":
            handler.server.release.wait(20)
        handler.reply(200, prompt_in(body).encode())
        if prompt_in(body) == "f":
            handler.server.release.set()

    outcomes = post(client(concurrency=2), serve(play), *texts)
    assert outcomes == [HttpOutcome(200, text) for text in texts]


def test_as_many_requests_are_in_flight_as_asked_for(serve):
    """Nine requests in threes: each waits in the server until three are there."""
    three = threading.Barrier(3, timeout=20)
    flying: list[int] = [0]

    def play(handler, body, number):
        with handler.server.lock:
            flying.append(flying[-1] + 1)
        three.wait()
        with handler.server.lock:
            flying.append(flying[-1] - 1)
        handler.reply(200, b"ok")

    outcomes = post(client(concurrency=3), serve(play), *"abcdefghi")
    assert [outcome.status for outcome in outcomes] == [200] * 9
    assert max(flying) == 3


@pytest.mark.parametrize(
    ("status", "tries"),
    [
        *[(status, 3) for status in (408, 429, 500, 502, 503, 504)],
        *[(status, 1) for status in (200, 307, 400, 401, 403, 404, 413, 422)],
    ],
)
def test_what_is_tried_again(serve, status, tries):
    server = serve(always(status, b"words"))
    assert post(client(retries=2), server, "a") == [HttpOutcome(status, "words")]
    assert server.tries == {"a": tries}


def test_a_broken_connection_is_tried_again(serve):
    def play(handler, body, number):
        close(handler) if number < 3 else handler.reply(200, b"ok")

    server = serve(play)
    assert post(client(retries=2), server, "a") == [HttpOutcome(200, "ok")]
    (broken,) = post(client(retries=0), serve(close), "a")
    assert broken.status is None and broken.failure.startswith("ServerDisconnectedError")
    assert broken.connected and broken.sent


def test_retry_after_wins_over_the_back_off(serve, pauses):
    def play(handler, body, number):
        if number < 6:
            wait = {2: "7", 5: "900"}.get(number)
            handler.reply(429, b"", **({"Retry_After": wait} if wait else {}))
        else:
            handler.reply(200, b"ok")

    (outcome,) = post(client(retries=5, retry_wait_s=10), serve(play), "x")
    assert outcome.body == "ok"
    assert pauses == [10, 7, 40, 60, 60]  # doubled; 10 * 2 ** 3 and 900 are cut to 60


def test_requests_per_second_spaces_the_starts(serve, pauses):
    """The nth request starts n * 100 s after the first; what has passed since is taken off."""
    server = serve(always(200, b"ok"))
    slow = client(requests_per_second=0.01, concurrency=4)
    post(slow, server, *"abcd")
    assert sorted(pauses) == pytest.approx([100, 200, 300], abs=20)
    post(slow, server, "e")  # a later call is spaced as well
    assert pauses[3:] == pytest.approx([400], abs=20)


def test_retries_are_spaced_as_well(serve, pauses):
    post(client(requests_per_second=0.01, retries=1, retry_wait_s=5), serve(always(500, b"")), "a")
    assert pauses == [5, pytest.approx(100, abs=20)]


def test_three_requests_in_a_row_without_an_answer_are_the_last(serve):
    """b and c are two in a row, d is answered; e, f and g are three; h and i are not sent."""

    def play(handler, body, number):
        handler.reply(200, b"ok") if prompt_in(body) in "ad" else handler.reply(503, b"")

    server = serve(play)
    outcomes = post(client(concurrency=1, retries=1), server, *"abcdefghi")
    away = HttpOutcome(503)
    good = HttpOutcome(200, "ok")
    assert outcomes == [good, away, away, good, away, away, away, NOT_SENT, NOT_SENT]
    assert server.tries == {"a": 1, "d": 1, **dict.fromkeys("bcefg", 2)}
    assert post(client(), server, "a") == [good]


def test_a_server_that_says_500_is_not_away(serve):
    server = serve(always(500, b""))
    assert post(client(concurrency=1), server, *"abcde") == [HttpOutcome(500)] * 5


def test_every_call_has_its_own_strikes(serve):
    server = serve(always(503, b""))
    sender = client(concurrency=1)
    assert post(sender, server, "a", "b") == [HttpOutcome(503)] * 2
    assert post(sender, server, "c", "d") == [HttpOutcome(503)] * 2


def test_a_redirect_is_not_followed(serve):
    """Else the key would travel to a server that it is not meant for."""
    other = serve(always(200, b"ok"))
    server = serve(lambda handler, *_: handler.reply(307, b"", Location=f"{other.url}/x"))
    assert post(client(KEY), server, "a") == [HttpOutcome(307)]
    assert server.keys == {f"Bearer {KEY}"} and other.keys == set()


def test_a_server_that_is_not_there(serve):
    with running(always(200, b"")) as server:
        pass
    outcome = client().get(f"{server.url}/models")
    assert not outcome.connected and outcome.status is None
    assert "Cannot connect to host 127.0.0.1" in outcome.failure
    assert client().get(f"{serve(always(200, b'')).url}/models") == HttpOutcome(404)


def test_an_interrupt_ends_the_requests(serve):
    """b and c wait behind a request that hangs; they are not sent after Ctrl-C."""

    def play(handler, body, number):
        if prompt_in(body) == "a":
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            handler.server.release.wait(60)
        handler.reply(200, b"ok")

    server = serve(play)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            post(client(concurrency=1), server, *"abc")
    finally:
        signal.signal(signal.SIGINT, before)
    assert server.tries == {"a": 1} and not server.release.is_set()


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (HttpOutcome(401, error(f"no such key {KEY}").decode()), "401: no such key [key]"),
        (
            HttpOutcome(failure=f"OSError: with\n header Bearer {KEY}"),
            "OSError: with header Bearer [key]",
        ),
        (HttpOutcome(502, f"<html>{KEY}"), "502: not JSON: <html>[key]"),
        (HttpOutcome(400, '{"detail": "too long"}'), "400: too long"),
        (HttpOutcome(400, "[1, 2]"), "400: no choices in [1, 2]"),
        (HttpOutcome(503), "503: an empty body"),
        (HttpOutcome(500, "x" * 400), f"500: not JSON: {'x' * 285}..."),
    ],
)
def test_messages_are_short_and_without_the_key(outcome, words):
    assert client(KEY).clean(outcome) == words
    assert KEY not in repr(client(KEY))


def packed(body: bytes, encoding: str) -> Any:
    """Answers with these bytes, said to be packed so."""
    return lambda handler, *_: handler.reply(200, body, Content_Encoding=encoding)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress("ja · 日本".encode()), "gzip"),
        (gzip.compress("ja · 日本".encode()), "x-gzip"),
        (zlib.compress("ja · 日本".encode()), "deflate"),
        ("ja · 日本".encode(), "identity"),
    ],
)
def test_a_packed_answer_is_unpacked(serve, body, encoding):
    assert post(client(), serve(packed(body, encoding)), "a") == [HttpOutcome(200, "ja · 日本")]


def test_an_answer_of_gigabytes_is_not_unpacked(serve, monkeypatch):
    """10 MB of zeros are 10 kB of gzip; the client unpacks one byte above the limit."""
    monkeypatch.setattr(http_client, "LARGEST_BODY", 1000)
    most: list[int] = []

    class Unpacking:
        def __init__(self, window: int) -> None:
            self._object = decompressobj(window)

        def decompress(self, piece: bytes, limit: int = 0) -> bytes:
            most.append(limit)
            return self._object.decompress(piece, limit)

    decompressobj = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Unpacking)
    for body, encoding in ((gzip.compress(bytes(10**7)), "gzip"), (bytes(2000), "identity")):
        (outcome,) = post(client(retries=2), serve(packed(body, encoding)), "a")
        expected = "expected at most 1,000 bytes of answer, found more"
        assert (outcome.status, outcome.body, outcome.failure) == (200, "", expected)
        assert client().clean(outcome) == f"200: {expected}"
    assert most == [1001]


@pytest.mark.parametrize(
    ("body", "encoding", "failure"),
    [
        (gzip.compress(b"x" * 100)[:-9], "gzip", "error: the packed answer ends early"),
        (b"plain", "gzip", "error: Error -3 while decompressing data"),
        (b"x", "br", "expected gzip or plain text, found the encoding 'br'"),
    ],
)
def test_an_answer_that_is_packed_otherwise_than_said(serve, body, encoding, failure):
    (outcome,) = post(client(), serve(packed(body, encoding)), "a")
    assert outcome.failure.startswith(failure) and outcome.body == ""
