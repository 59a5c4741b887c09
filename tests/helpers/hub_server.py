"""A stand-in of the protocol by which files are committed to Hugging Face's hub.

It takes every file in the commit itself. The real hub has large ones sent to its Xet servers, which
is huggingface_hub's business and has no stand-in here.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from servers_here import LocalHandler, LocalServer

COMMIT = "0" * 40


class HubServer(LocalServer):
    """Keeps what is committed, by repository and path."""

    def __init__(self) -> None:
        super().__init__(HubHandler)
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.refuses: tuple[int, str] | None = None


class HubHandler(LocalHandler):
    server: HubServer

    def get(self) -> None:
        self._json({"error": "not here"}, 404)

    def post(self) -> None:
        body, path = self.body(), self.path.partition("?")[0]
        if self.server.refuses is not None:
            status, message = self.server.refuses
            return self._json({"error": message}, status)
        if path == "/api/repos/create":
            asked = json.loads(body)
            self.server.created.append(asked)
            name = f"{asked['organization']}/{asked['name']}"
            return self._json({"url": f"{self.server.url}/{name}", "id": name})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            named = [file["path"] for file in json.loads(body)["files"]]
            return self._json({"files": [self._mode(name) for name in named]})
        if path.endswith("/commit/main"):
            lines = [json.loads(line) for line in body.splitlines()]
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
            repository = path.removeprefix("/api/").removeprefix("models/")
            where = f"{self.server.url}/{repository.removesuffix('main')}{COMMIT}"
            return self._json({"success": True, "commitOid": COMMIT, "commitUrl": where})
        return self._json({"error": f"unknown {path}"}, 404)

    def _mode(self, name: str) -> dict[str, Any]:
        return {"path": name, "uploadMode": "regular", "shouldIgnore": False}

    def _json(self, value: Any, status: int = 200) -> None:
        self.reply(status, json.dumps(value).encode(), Content_Type="application/json")
