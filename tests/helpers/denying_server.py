"""A stand-in for a tracking server that lets its user look and make nothing."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

OTHERS = ("team/search", "team/ads")
"""Experiments that the user sees."""


class _Handler(BaseHTTPRequestHandler):
    def _reply(self, status: int, content: object) -> None:
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        verb = urlsplit(self.path).path.rpartition("/mlflow/")[2]
        self.server.asked.append(verb)  # type: ignore[attr-defined]
        if verb == "experiments/get-by-name":
            missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}
            self._reply(404, missing)
        elif verb == "experiments/search":
            found = [{"experiment_id": str(i), "name": name} for i, name in enumerate(OTHERS)]
            self._reply(200, {"experiments": found})
        else:
            self._reply(403, "Permission denied")

    do_GET = do_POST = _answer

    def log_message(self, *words: object) -> None:
        pass


@contextlib.contextmanager
def denying_server() -> Iterator[tuple[str, list[str]]]:
    """Its address, and the calls that it was asked."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
