"""A chat server whose every answer a test plays, for the tests of the HTTP engine."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from servers_here import LocalHandler, LocalServer, serving

Play = Callable[["Handler", dict[str, Any], int], None]
"""Answers one POST: handler, body, and how many times its prompt has been asked by now."""


def completion(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, **more}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}).encode()


def error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()


class Server(LocalServer):
    """Calls `play` for every POST; keeps tries per prompt, and bodies."""

    def __init__(self, play: Play) -> None:
        super().__init__(Handler)
        self.url += "/v1"
        self.play = play
        self.tries: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.release = threading.Event()
        self.models = (404, b"")


class Handler(LocalHandler):
    server: Server

    def get(self) -> None:
        self.reply(*self.server.models)

    def post(self) -> None:
        body = json.loads(self.body())
        with self.server.lock:
            asked = prompt_in(body)
            self.server.tries[asked] += 1
            number = self.server.tries[asked]
            self.server.bodies.append(body)
        self.server.play(self, body, number)


@contextlib.contextmanager
def running(play: Play) -> Iterator[Server]:
    """A server on a free port, until the block ends; what still waits for `release` is let go."""
    with serving(Server(play)) as server:
        try:
            yield server
        finally:
            server.release.set()


def prompt_in(body: dict[str, Any]) -> str:
    """The text of the last message."""
    return str(body["messages"][-1]["content"])


def always(status: int, body: bytes) -> Play:
    return lambda handler, asked, number: handler.reply(status, body)


def close(handler: Handler, *_: object) -> None:
    """Break the connection off without an answer."""
    handler.close_connection = True
