"""A stand-in for Elasticsearch, OpenSearch, Solr and Vespa: finds documents by shared words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from servers_here import LocalHandler, LocalServer, serving

Trouble = Callable[[str, int], tuple[int, dict[str, Any]] | None]
"""Given a query's text and how often it was asked by now: a status and an answer in place of the
list, or None."""

ES = {"query": {"match": {"body": "{query}"}}}
SOLR = {"query": "{!edismax qf=body v=$text}", "params": {"text": "{query}"}}
VESPA = {"yql": "select * from docs where {targetHits: {depth}}userInput(@text)", "text": "{query}"}
REQUESTS = {"elasticsearch": ES, "opensearch": ES, "solr": SOLR, "vespa": VESPA}
"""A request of each engine, of which the stand-in reads the query."""
PATHS = {
    "elasticsearch": "/shop/_msearch",
    "opensearch": "/shop/_msearch",
    "solr": "/solr/shop/query",
    "vespa": "/search/",
}


class SearchServer(LocalServer):
    """Serves the documents; keeps what it was asked."""

    def __init__(self, docs: Mapping[str, str], trouble: Trouble) -> None:
        super().__init__(_Handler)
        self.docs, self.trouble = docs, trouble
        self.asked: list[str] = []
        """Texts of queries, in the order of their coming."""
        self.paths: set[str] = set()
        self.requests: list[dict[str, Any]] = []
        self.knock = (200, {})

    def answer(self, text: str, depth: int) -> list[tuple[str, float]]:
        """The documents that share words with a text, the most first."""
        words = set(text.split())
        found = [(d, float(len(words & set(body.split())))) for d, body in self.docs.items()]
        return sorted((f for f in found if f[1]), key=lambda f: -f[1])[:depth]


class _Handler(LocalHandler):
    server: SearchServer

    def get(self) -> None:
        self._reply(*self.server.knock)

    def post(self) -> None:
        body = self.body().decode()
        with self.server.lock:
            self.server.paths.add(self.path)
        if self.path.endswith("/_msearch"):
            assert self.headers["Content-Type"] == "application/x-ndjson" and body.endswith("\n")
            requests = [json.loads(line) for line in body.splitlines()[1::2]]
            answers = [self._es(request) for request in requests]
            whole = [status for status, answer in answers if answer.get("whole")]
            self._reply(whole[0] if whole else 200, {"responses": [a for _, a in answers]})
        elif self.path.endswith("/query"):
            self._reply(*self._solr(json.loads(body)))
        else:
            self._reply(*self._vespa(json.loads(body)))

    def _es(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        text, trouble = self._asked(request, request["query"]["match"]["body"])
        hits = [
            {"_id": f"es-{d}" if request["_source"] else d, "_score": s, "_source": {"sku": [d]}}
            for d, s in self.server.answer(text, request["size"])
        ]
        return trouble or (200, {"status": 200, "hits": {"hits": hits}, "_shards": {"failed": 0}})

    def _solr(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        text, trouble = self._asked(request, request["params"]["text"])
        field, score = request["fields"]
        docs = [{field: d, score: s} for d, s in self.server.answer(text, request["limit"])]
        return trouble or (200, {"responseHeader": {"status": 0}, "response": {"docs": docs}})

    def _vespa(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        text, trouble = self._asked(request, request["text"])
        found = self.server.answer(text, request["hits"])
        hits = [
            {"id": f"id:shop:docs::{d}", "relevance": s, "fields": {"sku": d}} for d, s in found
        ]
        return trouble or (200, {"root": {"children": hits, "coverage": {"coverage": 100}}})

    def _asked(self, request: dict[str, Any], text: str) -> tuple[str, Any]:
        with self.server.lock:
            self.server.requests.append(request)
            self.server.asked.append(text)
            number = self.server.asked.count(text)
        return text, self.server.trouble(text, number)

    def _reply(self, status: int, answer: dict[str, Any]) -> None:
        self.reply(status, json.dumps(answer).encode())


def searching(
    docs: Mapping[str, str], trouble: Trouble = lambda text, number: None
) -> AbstractContextManager[SearchServer]:
    """A server on a free port, until the block ends."""
    return serving(SearchServer(docs, trouble))
