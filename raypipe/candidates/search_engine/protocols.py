"""How Elasticsearch, OpenSearch, Solr and Vespa are asked over HTTP, and how they answer.

A protocol makes the body for some queries' requests, and reads one `Reply` per request out of an
answer. What an engine itself calls incomplete (a shard that failed, a time-out) is no list: it may
be asked again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from raypipe.inference.llm.http_client import Body

LONGEST_WORDS = 300
"""Most characters of an engine's own words that are kept."""


@dataclass(frozen=True)
class Hit:
    """One document that an engine found."""

    doc_id: str
    score: float | None
    """None where the engine gives none, as after a `sort`."""


@dataclass(frozen=True)
class Reply:
    """What became of one query's request."""

    hits: tuple[Hit, ...] = ()
    """In the engine's order."""
    failure: str = ""
    """The engine's words where it gave no complete list; empty where it did."""
    again: bool = False
    """Whether the same request may succeed later."""


class Protocol:
    """Base of the protocols."""

    depth_field: ClassVar[str]
    """The field of a request that says how many documents are wanted."""
    needs_index: ClassVar[bool] = True
    many: ClassVar[bool] = False
    """Whether one HTTP request asks several queries."""

    def path(self, index: str | None) -> str:
        """Where requests go, below the server's address."""
        raise NotImplementedError

    def request(self, filled: Mapping[str, Any], depth: int, field: str | None) -> dict[str, Any]:
        """One query's request.

        Args:
            filled: the recipe's template with the query in it.
            field: the one that holds a document's id; None is the engine's own id.
        """
        raise NotImplementedError

    def body(self, requests: Sequence[Mapping[str, Any]]) -> Body:
        """What is sent for some queries; for one, unless `many`."""
        (request,) = requests
        return request

    def replies(self, answer: Any, field: str | None) -> list[Reply]:
        """One reply per request, read out of an answer's JSON.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, IndexError: it has another form.
        """
        raise NotImplementedError

    def words(self, answer: Any) -> str:
        """What an engine says in an answer that holds no list; empty if nothing that is known."""
        raise NotImplementedError


class Elasticsearch(Protocol):
    """Elasticsearch and OpenSearch: `_msearch`, many queries as JSON lines."""

    depth_field = "size"
    many = True

    def path(self, index: str | None) -> str:
        return f"/{index}/_msearch"

    def request(self, filled: Mapping[str, Any], depth: int, field: str | None) -> dict[str, Any]:
        return {"_source": False if field is None else [field], **filled, "size": depth}

    def body(self, requests: Sequence[Mapping[str, Any]]) -> Body:
        return "".join(f"{{}}\n{json.dumps(request)}\n" for request in requests)

    def replies(self, answer: Any, field: str | None) -> list[Reply]:
        return [self._reply(response, field) for response in answer["responses"]]

    def _reply(self, response: Mapping[str, Any], field: str | None) -> Reply:
        if "error" in response:
            status = response.get("status", 400)
            again = status == 429 or status >= 500
            return Reply(failure=f"{status}: {self.words(response)}", again=again)
        if response.get("timed_out"):
            return Reply(failure="the search timed out", again=True)
        if (shards := response.get("_shards", {})).get("failed"):
            reasons = [self.words({"error": f.get("reason")}) for f in shards.get("failures", ())]
            failed = f"{shards['failed']} of {shards.get('total')} shards failed"
            return Reply(failure=": ".join([failed, *reasons[:1]]), again=True)
        return Reply(
            tuple(Hit(_es_id(hit, field), _score(hit.get("_score"))) for hit in _es_hits(response))
        )

    def words(self, answer: Any) -> str:
        error = answer.get("error", "")
        if not isinstance(error, Mapping):
            return str(error)
        causes = [error.get("reason"), *(c.get("reason") for c in error.get("root_cause", ()))]
        deeper = error.get("caused_by")
        causes += [deeper.get("reason")] if isinstance(deeper, Mapping) else []
        return _joined([error.get("type"), *causes])


class Solr(Protocol):
    """Solr's JSON Request API, one query a request."""

    depth_field = "limit"

    def path(self, index: str | None) -> str:
        return f"/{index}/query"

    def request(self, filled: Mapping[str, Any], depth: int, field: str | None) -> dict[str, Any]:
        return {"fields": [field or "id", "score"], **filled, "limit": depth}

    def replies(self, answer: Any, field: str | None) -> list[Reply]:
        if answer["responseHeader"].get("partialResults"):
            return [Reply(failure="Solr calls its results partial", again=True)]
        found = answer["response"]["docs"]
        return [Reply(tuple(Hit(_text(d[field or "id"]), _score(d.get("score"))) for d in found))]

    def words(self, answer: Any) -> str:
        return str(answer["error"].get("msg", ""))


class Vespa(Protocol):
    """Vespa's query API, one query a request."""

    depth_field = "hits"
    needs_index = False

    def path(self, index: str | None) -> str:
        return "/search/"

    def request(self, filled: Mapping[str, Any], depth: int, field: str | None) -> dict[str, Any]:
        return {**filled, "hits": depth}

    def replies(self, answer: Any, field: str | None) -> list[Reply]:
        root = answer["root"]
        if root.get("errors"):
            return [Reply(failure=self.words(answer), again=root["errors"][0].get("code") == 12)]
        if degraded := root.get("coverage", {}).get("degraded"):
            why = ", ".join(name for name, value in degraded.items() if value)
            return [Reply(failure=f"Vespa covered a part of the documents: {why}", again=True)]
        found = root.get("children", ())
        return [
            Reply(tuple(Hit(_vespa_id(hit, field), _score(hit.get("relevance"))) for hit in found))
        ]

    def words(self, answer: Any) -> str:
        """Code 12 is Vespa's time-out."""
        errors = answer["root"]["errors"]
        return "; ".join(_joined([e.get("summary"), e.get("message")]) for e in errors)


PROTOCOLS: Mapping[str, Protocol] = {
    "elasticsearch": Elasticsearch(),
    "opensearch": Elasticsearch(),
    "solr": Solr(),
    "vespa": Vespa(),
}
"""By the name that a recipe gives the engine."""


def _es_hits(response: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    hits: Sequence[Mapping[str, Any]] = response["hits"]["hits"]
    return hits


def _es_id(hit: Mapping[str, Any], field: str | None) -> str:
    """The hit's own id, or that in a field, dotted where objects are nested."""
    if field is None or field == "_id":
        return _text(hit["_id"])
    source = hit["_source"]
    if field in source:
        return _text(source[field])
    for name in field.split("."):
        source = source[name]
    return _text(source)


def _vespa_id(hit: Mapping[str, Any], field: str | None) -> str:
    """A field of the summary, or what stands behind `::` in id:NAMESPACE:TYPE::ID."""
    if field is not None:
        return _text(hit["fields"][field])
    name = str(hit["id"])
    if not name.startswith("id:") or "::" not in name:
        raise ValueError(f"a document's id {name!r}, which is no id:NAMESPACE:TYPE::ID")
    return name.partition("::")[2]


def _text(value: Any) -> str:
    """An id as text; engines give numbers, and lists of one."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"a document's id of the type {type(value).__name__}")
    return str(value)


def _score(value: Any) -> float | None:
    """A finite score; None for anything else, such as Vespa's "NaN"."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _joined(words: Sequence[Any]) -> str:
    """Different words in their order, as one text."""
    distinct = dict.fromkeys(str(word) for word in words if word)
    return ": ".join(distinct)[:LONGEST_WORDS]
