"""What a live search engine finds, as a candidate source."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import quote, urlsplit

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from raypipe.candidates.search_engine.asking import EngineClient
from raypipe.candidates.search_engine.protocols import PROTOCOLS, Hit, Protocol
from raypipe.candidates.search_engine.template import check_template, filled
from raypipe.candidates.without_self import DepthOptions
from raypipe.config import NOT_SEMANTIC, ConfigError
from raypipe.datasets.dataset import file_safe
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.inference.llm.api_keys import check_server
from raypipe.inference.llm.http_client import Scheme
from raypipe.inference.llm.server_options import REMEDIES, ServerOptions
from raypipe.names import Name
from raypipe.records import CANDIDATES, candidate_row
from raypipe.resources import Context
from raypipe.storage.address import Address
from raypipe.storage.artifacts import Attempt, Step
from raypipe.tables.chunks import Counts, Work, built_late, run_chunks_here
from raypipe.tables.text_table import TextTable

CHUNK = 256
"""Queries per file: what an interrupted job asks again at most."""
SCHEMES: Mapping[str, Scheme] = {"api_key": "ApiKey", "bearer": "Bearer", "basic": "Basic"}
"""How keys are sent, by the recipe's `auth`."""
ASKED_ON = "queries_asked_on_"
"""Begins the counts of queries by the day on which they were asked."""


class SearchEngine(ServerOptions, DepthOptions):
    """The lists of Elasticsearch, OpenSearch, Solr or Vespa, asked once and kept.

    They are a snapshot: the engine's documents may change, the artifact does not.
    """

    type: Literal["search_engine"] = "search_engine"
    engine: Literal["elasticsearch", "opensearch", "solr", "vespa"] = "elasticsearch"
    """Which it is: `_msearch`, Solr's JSON Request API, or Vespa's query API."""
    url: Annotated[Address, NOT_SEMANTIC]
    """Address of the server: http://HOST:9200, http://HOST:8983/solr, http://HOST:8080."""
    index: str | None = Field(None, min_length=1)
    """Index or alias, or Solr's collection; null for Vespa, whose request names it."""
    request: dict[str, Any]
    """The request for one query as the engine takes it; `{query}` in its texts is the query's text,
    `{depth}` the depth."""
    snapshot: str | None = Field(None, min_length=1)
    """Your own name of the state of the engine, such as a day; another name asks it again. Never
    sent."""
    doc_id: str | None = Field(None, min_length=1)
    """Field that holds the id that a document has in the data set; null is the engine's own id. Of
    hits with one id, such as passages of a document, the first counts."""
    name: Name = "search engine"
    """The source's name in tables."""
    auth: Annotated[Literal["api_key", "bearer", "basic"], NOT_SEMANTIC] = "api_key"
    """How the key is sent: Elasticsearch's API keys, tokens, or `user:password`."""
    queries_per_request: Annotated[int, Field(ge=1, le=1000), NOT_SEMANTIC] = 16
    """Of `_msearch`; the other engines are asked one by one."""
    concurrency: Annotated[int, Field(ge=1, le=256), NOT_SEMANTIC] = 4
    """Requests in flight; one that waits for its next try counts."""
    retries: Annotated[int, Field(ge=0, le=20), NOT_SEMANTIC] = 6
    """Further tries after 408, 429, 5xx, a time-out, a broken connection or a partial answer."""
    timeout_s: Annotated[float, Field(gt=0), NOT_SEMANTIC] = 60.0
    """Seconds for one try, from the connection to the last byte."""

    whose: ClassVar[str] = "search engine"
    remedies: ClassVar[Mapping[str, str]] = {
        "401": f"{REMEDIES['401']}, and `auth` to its kind",
        "404": "correct url or index",
        "200": "lower depth or queries_per_request",
        "": "correct index, request or depth",
    }

    @field_validator("snapshot", mode="before")
    @classmethod
    def _day_as_text(cls, value: Any) -> Any:
        """YAML reads 2026-11-27 as a day."""
        return value.isoformat() if hasattr(value, "isoformat") else value

    @model_validator(mode="after")
    def _fits_the_engine(self) -> Self:
        form = {"solr": "http://HOST:8983/solr", "vespa": "http://HOST:8080"}
        check_server(
            str(self.url),
            self.api_key_env,
            form.get(self.engine, "http://HOST:9200"),
            known=(),
            example="RAYPIPE_SEARCH_KEY",
        )
        if self.protocol.needs_index and self.index is None:
            raise ValueError(f"index: expected the name that {self.engine} is asked by, found none")
        if not self.protocol.needs_index and self.index is not None:
            raise ValueError(f"index: {self.engine} has none; name the document type in request")
        check_template(self.request, self.protocol.depth_field)
        return self

    @property
    def label(self) -> str:
        return self.name if self.snapshot is None else f"{self.name} {self.snapshot}"

    @property
    def protocol(self) -> Protocol:
        """How the engine is asked."""
        return PROTOCOLS[self.engine]

    @property
    def endpoint(self) -> Address:
        parts = urlsplit(self.url.reveal())
        index = None if self.index is None else quote(self.index, safe=",*-._")
        path = parts.path.rstrip("/") + self.protocol.path(index)
        return Address(parts._replace(path=path, fragment="").geturl())

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that asks."""
        return self.cut(EngineCandidates(self, collection, queries))

    def key(self) -> str | None:
        """The key, read now.

        Raises:
            ConfigError: the variable is not set, or holds what cannot be sent.
        """
        key = super().key()
        if key is not None and self.auth == "basic" and ":" not in key:
            raise ConfigError(
                f"search engine: {self.api_key_env} holds no colon; auth basic expects "
                "user:password in it"
            )
        return key

    def client(self) -> EngineClient:
        """A client, after the server has been seen.

        Raises:
            ConfigError: no server is there, or it refuses the key.
        """
        client = self.connect(self.url, SCHEMES[self.auth])
        return EngineClient(self, client, self.protocol, self.queries_per_request, self.doc_id)


@dataclass(frozen=True)
class EngineCandidates(Step):
    """One row per query: the engine's documents that the collection has, in the engine's order.

    Hits without a score, such as sorted ones, get minus their rank.
    """

    source: SearchEngine
    collection: Collection
    queries: Queries

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"{file_safe(self.source.label)}-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        names = ("engine", "index", "request", "snapshot", "doc_id", "name")
        chosen = {name: getattr(self.source, name) for name in names}
        return {**chosen, "depth": self.source.retrieved}

    def facts(self) -> Mapping[str, Any]:
        return {"url": self.source.endpoint.place, "snapshot_of": today()}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection, "queries": self.queries}

    def remarks(self, facts: Mapping[str, Any]) -> Sequence[str]:
        asked, named = facts.get("url"), self.source.endpoint.place
        other = "" if asked == named else f", the recipe names {named}"
        return [
            f"the lists of {asked} as of {facts.get('snapshot_of')}{other}; set `snapshot` to have "
            "it asked again"
        ]

    def alarms(self, counts: Mapping[str, Any]) -> Sequence[str]:
        days = sorted(name.removeprefix(ASKED_ON) for name in counts if name.startswith(ASKED_ON))
        if len(days) < 2:
            return ()
        return [
            f"the engine was asked on {len(days)} days, from {days[0]} to {days[-1]}: its "
            "documents may have changed between; set `snapshot` to have all queries asked again"
        ]

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        queries = TextTable(attempt.inputs["queries"].local() / QUERIES_FILE)
        work = built_late(lambda: engine_work(self.source, self.source.client(), docs, queries))
        counts = run_chunks_here(work, len(queries), CHUNK, attempt, context)
        if not counts["candidates"]:
            found = counts["unknown_documents"]
            what = (
                f"none of its {found} documents is in the collection; set doc_id to the field that "
                "holds the data set's ids"
                if found
                else f"no document for any of {len(queries)} queries; correct `request`"
            )
            raise ConfigError(f"search engine: {self.source.endpoint.place}: {what}")
        return counts


def today() -> str:
    """The day, as in 2026-11-27."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def engine_work(
    source: SearchEngine, client: EngineClient, docs: TextTable, queries: TextTable
) -> Work:
    """The work on a chunk."""
    query_ids = queries.ids()

    def work(chunk: range) -> tuple[pa.Table, Counts]:
        ids = query_ids.slice(chunk.start, len(chunk)).to_pylist()
        day = today()
        requests = [
            source.protocol.request(
                filled(source.request, text, source.retrieved), source.retrieved, source.doc_id
            )
            for text in queries.texts(chunk)
        ]
        counts: Counter[str] = Counter(
            candidates=0, queries_without_candidates=0, unknown_documents=0
        )
        rows = [
            _row(query_id, hits, source, docs.rows_of, counts)
            for query_id, hits in zip(ids, client.ask(ids, requests), strict=True)
        ]
        counts[f"{ASKED_ON}{day}"] = len(ids)
        return pa.Table.from_pylist(rows, schema=CANDIDATES), dict(counts)

    return work


def _row(
    query_id: str,
    hits: Sequence[Hit],
    source: SearchEngine,
    rows_of: Callable[[Sequence[str]], np.ndarray[Any, Any]],
    counts: Counter[str],
) -> dict[str, Any]:
    """A query's candidates: hits that are documents of the collection, each once."""
    first: dict[str, Hit] = {}
    for hit in hits:
        first.setdefault(hit.doc_id, hit)
    there = rows_of(list(first)) >= 0
    known = [hit for hit, is_there in zip(first.values(), there, strict=True) if is_there]
    kept = known[: source.retrieved]
    scored = all(hit.score is not None for hit in kept)
    counts["duplicates"] += len(hits) - len(first)
    counts["unknown_documents"] += len(first) - len(known)
    counts["beyond_depth"] += len(known) - len(kept)
    counts["candidates"] += len(kept)
    counts["queries_without_candidates"] += not kept
    counts["queries_without_scores"] += not scored
    scores = [hit.score if scored else -rank for rank, hit in enumerate(kept, 1)]
    return candidate_row(query_id, [hit.doc_id for hit in kept], scores, source.name)
