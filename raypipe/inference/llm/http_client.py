"""Sends many requests to one HTTP server: some at a time, with retries, at a limited rate."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from raypipe.storage.masking import without_secrets
from raypipe.tables.json_text import parse_json

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")
Scheme = Literal["Bearer", "ApiKey", "Basic"]
"""How a key is sent; that of Basic is `user:password`."""
Body = Mapping[str, Any] | str
"""What is sent: one JSON value, or text of JSON lines."""

AWAY = (None, 408, 429, 502, 503, 504)
"""Statuses that say nothing about the request: no response, or a server that is busy or away."""
STRIKES = 3
"""Requests in a row without an answer in all their tries after which no more are sent."""
LONGEST_WAIT = 60.0
"""Most seconds between two tries of one request."""
LONGEST_CONNECT = 10.0
"""Most seconds until a connection stands, and for the first knock at a server."""
LONGEST_CANCEL = 10.0
"""Most seconds that an interrupted caller waits for its requests to be cancelled."""
LONGEST_MESSAGE = 300
"""Most characters of a server's words in an error."""
LARGEST_BODY = 16 << 20
"""Most bytes of a response, unpacked: a few kilobytes of gzip may hold gigabytes."""
_PIECE = 1 << 16
_UNPACKED = ("", "identity")
_PACKED = ("gzip", "x-gzip", "deflate")


@dataclass(frozen=True)
class HttpOutcome:
    """What became of one request."""

    status: int | None = None
    """None if there was no response."""
    body: str = ""
    failure: str = ""
    """Why there was no response, or none that can be read."""
    connected: bool = True
    """False if no connection to the server came about."""
    sent: bool = True
    """False if the server had left `STRIKES` requests before this one without an answer."""
    retry_after_s: int | None = None
    """Seconds that the server asks the client to wait."""

    @property
    def away(self) -> bool:
        """Whether the outcome says nothing about the request."""
        return self.status in AWAY

    @property
    def can_change(self) -> bool:
        """Whether another try may end otherwise."""
        return self.away or (self.status or 0) >= 500


NOT_SENT = HttpOutcome(
    failure=f"not sent, the server had left {STRIKES} requests without an answer", sent=False
)


class Client:
    """Sends requests to one server. The key is in no repr and is taken out of every message.

    Args:
        key: None for a server without keys.
        concurrency: requests in flight; one that waits for its next try counts.
        requests_per_second: starts of requests, retries included, over all calls of this client.
        retries: further tries of a request after no response, 408, 429 or 5xx.
        retry_wait_s: before the first retry, doubled each time; a Retry-After header wins.
        timeout_s: for one try, from the connection to the last byte.
        clean: takes what is secret in the server's address out of words of others.
        scheme: of the header that carries the key.
    """

    def __init__(
        self,
        key: str | None,
        *,
        concurrency: int,
        requests_per_second: float | None,
        retries: int,
        retry_wait_s: float,
        timeout_s: float,
        clean: Callable[[str], str] = without_secrets,
        scheme: Scheme = "Bearer",
    ) -> None:
        self._secrets: list[str] = []
        self._headers: dict[str, str] = {}
        if key:
            sent = base64.b64encode(key.encode()).decode() if scheme == "Basic" else key
            password = key.partition(":")[2] if scheme == "Basic" else ""
            self._secrets = [secret for secret in (sent, key, password) if len(secret) > 2]
            self._headers = {"Authorization": f"{scheme} {sent}"}
        self._clean = clean
        self._concurrency = concurrency
        self._interval_s = 1 / requests_per_second if requests_per_second else 0.0
        self._retries = retries
        self._retry_wait_s = retry_wait_s
        self._timeout_s = timeout_s
        self._next_start = 0.0

    def get(self, url: str) -> HttpOutcome:
        """One GET without retries."""
        return _run(self._get(url))

    def post_all(self, url: str, bodies: Sequence[Body]) -> list[HttpOutcome]:
        """One POST per body; outcomes in the order of the bodies.

        The first requests use up their tries before the last have had one, so that a server that
        hangs is found out after `STRIKES` requests, however many wait.
        """
        return _run(self._post_all(url, bodies))

    def clean(self, outcome: HttpOutcome) -> str:
        """Status and words of a failure in one line, the key taken out."""
        text = outcome.failure
        if outcome.status is not None:
            text = f"{outcome.status}: {outcome.failure or _message(outcome.body)}"
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return one_line(self._clean(text))

    async def _get(self, url: str) -> HttpOutcome:
        async with self._session(min(self._timeout_s, LONGEST_CONNECT)) as session:
            return await _try(session, "GET", url)

    async def _post_all(self, url: str, bodies: Sequence[Body]) -> list[HttpOutcome]:
        outcomes = [NOT_SENT] * len(bodies)
        waiting = deque(range(len(bodies)))
        strikes = 0

        async def send(session: aiohttp.ClientSession) -> None:
            nonlocal strikes
            while waiting:
                number = waiting.popleft()
                outcomes[number] = await self._post(session, url, bodies[number])
                strikes = strikes + 1 if outcomes[number].away else 0
                if strikes == STRIKES:
                    waiting.clear()

        async with self._session(self._timeout_s) as session, asyncio.TaskGroup() as senders:
            for _ in range(min(self._concurrency, len(bodies))):
                senders.create_task(send(session))
        return outcomes

    async def _post(self, session: aiohttp.ClientSession, url: str, body: Body) -> HttpOutcome:
        """One request with its retries."""
        await self._turn()
        outcome = await _try(session, "POST", url, body)
        for retry in range(self._retries):
            if not outcome.can_change:
                break
            pause = outcome.retry_after_s or self._retry_wait_s * 2**retry
            await asyncio.sleep(min(pause, LONGEST_WAIT))
            await self._turn()
            outcome = await _try(session, "POST", url, body)
        return outcome

    async def _turn(self) -> None:
        """Wait until the next request may start."""
        now = asyncio.get_running_loop().time()
        start = max(self._next_start, now)
        self._next_start = start + self._interval_s
        if start > now:
            await asyncio.sleep(start - now)

    def _session(self, timeout_s: float) -> aiohttp.ClientSession:
        """Sends the key, uses no proxy of the environment and limits no connections by itself."""
        import aiohttp

        return aiohttp.ClientSession(
            headers={"Accept-Encoding": "gzip", **self._headers},
            auto_decompress=False,  # `_body` does, up to a limit
            timeout=aiohttp.ClientTimeout(
                total=timeout_s, sock_connect=min(timeout_s, LONGEST_CONNECT)
            ),
            connector=aiohttp.TCPConnector(limit=0),
        )


async def _try(
    session: aiohttp.ClientSession, method: str, url: str, body: Body | None = None
) -> HttpOutcome:
    """One try of one request. Redirects are not followed: the key is meant for this server."""
    import aiohttp

    sent: dict[str, Any] = {"json": body}
    if isinstance(body, str):
        sent = {"data": body.encode(), "headers": {"Content-Type": "application/x-ndjson"}}
    try:
        async with session.request(method, url, **sent, allow_redirects=False) as response:
            wait = response.headers.get("Retry-After", "")
            after = int(wait) if re.fullmatch("[0-9]{1,9}", wait) else None
            try:
                text = await _body(response)
            except ValueError as error:
                return HttpOutcome(response.status, failure=str(error), retry_after_s=after)
            return HttpOutcome(response.status, text, retry_after_s=after)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        return HttpOutcome(failure=str(error), connected=False)
    except TimeoutError:
        return HttpOutcome(failure=f"no answer within {session.timeout.total:g} s")
    except (aiohttp.ClientError, OSError, ValueError, zlib.error) as error:
        return HttpOutcome(failure=f"{type(error).__name__}: {error}")


async def _body(response: aiohttp.ClientResponse) -> str:
    """The text of a response.

    Raises:
        ValueError: it is longer than `LARGEST_BODY`, or packed in a way that was not asked for.
        zlib.error: it is not packed as its header says, or was cut off.
    """
    packing = response.headers.get("Content-Encoding", "").strip().lower()
    if packing not in (*_UNPACKED, *_PACKED):
        raise ValueError(f"expected gzip or plain text, found the encoding {packing[:20]!r}")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if packing in _PACKED else None
    body = bytearray()
    async for piece in response.content.iter_chunked(_PIECE):
        body += unpack.decompress(piece, LARGEST_BODY + 1 - len(body)) if unpack else piece
        if len(body) > LARGEST_BODY:
            raise ValueError(f"expected at most {LARGEST_BODY:,} bytes of answer, found more")
    if unpack and body and not unpack.eof:
        raise zlib.error("the packed answer ends early")
    return body.decode("utf-8", "replace")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end in a thread of its own, so also where an event loop already runs (a notebook).

    An interrupt of the caller cancels the work: requests that wait are not sent.
    """
    loop, outcome = asyncio.new_event_loop(), Future[T]()
    task = loop.create_task(work)

    def run() -> None:
        try:
            outcome.set_result(loop.run_until_complete(task))
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            loop.close()

    try:
        Thread(target=run, daemon=True).start()
        return outcome.result()
    except BaseException:
        with suppress(RuntimeError):  # the loop has ended and closed
            loop.call_soon_threadsafe(task.cancel)
        wait([outcome], LONGEST_CANCEL)
        raise


def _message(body: str) -> str:
    """What the server says in a body that is no answer."""
    try:
        words = parse_json(body, repeats=True)
    except ValueError:
        return f"not JSON: {body}" if body.strip() else "an empty body"
    for name in ("error", "message", "detail"):
        if isinstance(words, dict) and words.get(name):
            words = words[name]
    if isinstance(words, str):
        return words
    try:
        return f"no choices in {json.dumps(words)}"
    except RecursionError:
        return "no choices in many levels of lists"


def one_line(text: str) -> str:
    """One line of at most `LONGEST_MESSAGE` characters."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + "..."
