"""A chat server whose every answer a test plays, for the tests of the HTTP engine."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Play = Callable[["Handler", dict[str, Any], int], None]
"""Answers one POST: handler, body, and how many times its prompt has been asked by now."""


def completion(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, **more}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}).encode()


def error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()


class Server(ThreadingHTTPServer):
    """Calls `play` for every POST; keeps tries per prompt, bodies and keys."""

    daemon_threads = True

    def __init__(self, play: Play) -> None:
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
            asked = prompt_in(body)
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


@contextlib.contextmanager
def running(play: Play) -> Iterator[Server]:
    """A server on a free port, until the block ends; what still waits for `release` is let go."""
    server = Server(play)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()


def prompt_in(body: dict[str, Any]) -> str:
    """The text of the last message."""
    return str(body["messages"][-1]["content"])


def always(status: int, body: bytes) -> Play:
    return lambda handler, asked, number: handler.reply(status, body)


def close(handler: Handler, *_: object) -> None:
    """Break the connection off without an answer."""
    handler.close_connection = True
