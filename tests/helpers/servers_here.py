"""HTTP servers in threads of this process, whose answers tests play."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

S = TypeVar("S", bound="LocalServer")


class LocalServer(ThreadingHTTPServer):
    """On a free port; keeps the keys it was sent."""

    daemon_threads = True

    def __init__(self, handler: type[LocalHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lock = threading.Lock()
        self.keys: set[str | None] = set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class LocalHandler(BaseHTTPRequestHandler):
    """Base of the handlers, with `get` and `post`; prints nothing."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.get()

    def do_POST(self) -> None:
        self.post()

    def body(self) -> bytes:
        """What came with the request, whose key is kept."""
        with self.server.lock:
            self.server.keys.add(self.headers.get("Authorization"))
        return self.rfile.read(int(self.headers["Content-Length"]))

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def serving(server: S) -> Iterator[S]:
    """Answers requests until the block ends."""
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def several(start: Callable[..., contextlib.AbstractContextManager[S]]) -> Iterator[Any]:
    """A function that starts servers, all of which end with the block."""
    with contextlib.ExitStack() as servers:
        yield lambda *given: servers.enter_context(start(*given))


def pauses_of_clients(monkeypatch) -> list[float]:
    """Seconds of every pause from now on, none of which is waited for."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def nap(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", nap)
    return pauses
