"""Asks a search engine about many queries: in requests of some queries, with patience."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from raypipe.candidates.search_engine.protocols import Hit, Protocol, Reply
from raypipe.config import ConfigError
from raypipe.inference.llm.http_client import LONGEST_WAIT, Client, HttpOutcome
from raypipe.inference.llm.server_options import ServerOptions
from raypipe.tables.json_text import parse_json


@dataclass(frozen=True)
class EngineClient:
    """Asks one server.

    Args:
        field: what holds a document's id; None is the engine's own id.
    """

    server: ServerOptions
    client: Client
    protocol: Protocol
    queries_per_request: int
    field: str | None

    def ask(self, query_ids: Sequence[str], requests: Sequence[dict[str, Any]]) -> list[list[Hit]]:
        """The documents found for each query.

        Queries without a complete list are asked again, after pauses that double.

        Raises:
            ConfigError: the engine refuses a query's request, or answers in an unknown form.
            RuntimeError: it gave no complete answer after all tries.
        """
        found: dict[int, list[Hit]] = {}
        for turn in range(self.server.retries + 1):
            waiting = [number for number in range(len(requests)) if number not in found]
            replies = self._replies([requests[number] for number in waiting])
            failed = {}
            for number, reply in zip(waiting, replies, strict=True):
                if not reply.failure:
                    found[number] = list(reply.hits)
                elif not reply.again:
                    raise self.server.refusal(f"{reply.failure} (query {query_ids[number]!r})")
                else:
                    failed[number] = reply.failure
            if not failed:
                break
            if turn < self.server.retries:
                time.sleep(min(self.server.retry_wait_s * 2**turn, LONGEST_WAIT))
        else:
            number, why = next(iter(failed.items()))
            raise RuntimeError(
                f"no complete answer from {self.server.endpoint.place} after "
                f"{self.server.retries + 1} tries for {len(failed)} of {len(requests)} queries, "
                f"such as {query_ids[number]!r} ({why}); finished chunks are kept, run the same "
                "command again"
            )
        return [found[number] for number in range(len(requests))]

    def _replies(self, requests: Sequence[dict[str, Any]]) -> list[Reply]:
        """One per request, in their order."""
        size = self.queries_per_request if self.protocol.many else 1
        batches = [requests[start : start + size] for start in range(0, len(requests), size)]
        bodies = [self.protocol.body(batch) for batch in batches]
        outcomes = self.client.post_all(self.server.endpoint.reveal(), bodies)
        gone = [o for o in outcomes if o.can_change and o.sent]
        if gone:  # each has used up its tries already
            raise self.server.no_answer(self._said(gone[0]))
        return [
            reply
            for outcome, batch in zip(outcomes, batches, strict=True)
            for reply in self._read(outcome, len(batch))
        ]

    def _read(self, outcome: HttpOutcome, expected: int) -> list[Reply]:
        if outcome.status != 200 or outcome.failure:
            raise self.server.refusal(self._said(outcome))
        try:
            replies = self.protocol.replies(parse_json(outcome.body, repeats=True), self.field)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            what = f"without {error}" if isinstance(error, LookupError) else str(error)
            raise self._unknown(outcome, what) from None
        if len(replies) != expected:
            raise self._unknown(outcome, f"{len(replies)} lists for {expected} queries")
        return replies

    def _said(self, outcome: HttpOutcome) -> str:
        """Status and words of a failure."""
        words = outcome.failure
        if not words:
            with suppress(ValueError, LookupError, TypeError, AttributeError):
                words = self.protocol.words(parse_json(outcome.body, repeats=True))
        words = words or outcome.body.strip() or "an empty body"
        return self.client.clean(HttpOutcome(outcome.status, failure=words))

    def _unknown(self, outcome: HttpOutcome, what: str) -> ConfigError:
        start = self.client.clean(HttpOutcome(failure=outcome.body[:200]))
        return ConfigError(
            f"{self.server.whose}: {self.server.endpoint.place} answered in a form that is not its "
            f"engine's: {what}, in {start}; correct engine, url or doc_id"
        )
