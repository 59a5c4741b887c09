"""The session that ray.data.llm's HTTP stage works with, in place of aiohttp's own.

The installed stage sends one request at a time and lets one bad answer (a page that is not JSON, a
dead server) end the whole batch with all its finished answers. Its `session_factory` is where that
is mended: `Client` keeps several requests in flight, retries each by itself and hands every
outcome on as data. The API key travels in it as well, because Ray Data exports the arguments of an
operator, headers among them, as text.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from raypipe.inference.llm.http import HttpEngine

AWAY = (None, 408, 429, 502, 503, 504)
"""What says nothing about the prompt: no answer at all, or a server that is busy or not there."""
STRIKES = 3
"""Prompts in a row without an answer in all their tries after which no more are sent."""
LONGEST_WAIT = 60.0
"""Seconds between two tries of one prompt, at most."""

Outcome = dict[str, Any]
"""`status` (None without a response), `body`, `why` (without a response), `sent`."""


class Client:
    """What the stage calls for a session: `post` starts a request at once and never raises.

    Not a dataclass and without a telling repr: Ray Data exports both as text.
    """

    def __init__(self, engine: HttpEngine, key: str | None) -> None:
        self._key = key
        self._tries = engine.retries + 1
        self._wait = engine.retry_wait_s
        self._timeout = engine.timeout_s
        self._flight = engine.concurrency
        self._pause = 1 / engine.requests_per_second if engine.requests_per_second else 0.0
        self._slots: asyncio.Semaphore | None = None  # of the actor's event loop
        self._next = 0.0
        self._strikes = 0

    def __repr__(self) -> str:
        return "Client()"

    def clean(self, outcome: Mapping[str, Any]) -> str:
        """Status and words of a failure in one line, the key taken out."""
        if outcome.get("status") is None:
            text = str(outcome["why"])
        else:
            text = f"{outcome['status']}: {_message(outcome['body'])}"
        return one_line(text.replace(self._key, "[key]") if self._key else text)

    def __call__(self) -> Session:
        if self._slots is None:
            self._slots = asyncio.Semaphore(self._flight)
        return Session(self, self.http(self._timeout))

    def http(self, timeout_s: float) -> Any:
        """An aiohttp session that sends the key."""
        import aiohttp

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, 10))
        connector = aiohttp.TCPConnector(limit=0)
        return aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector)

    async def probe(self, url: str) -> Outcome:
        """One GET; `sent` is False if no connection came about."""
        async with self.http(min(self._timeout, 10)) as http:
            return await try_once(http, "GET", url, None)

    async def ask(self, http: Any, url: str, body: Any) -> Outcome:
        """One prompt with its retries, in one of the slots all the while.

        So the first prompts use up their tries before the last have had one, and a server that
        hangs is found out after three of them, however many wait.
        """
        assert self._slots is not None, "made by __call__"
        async with self._slots:
            if self._strikes >= STRIKES:
                why = f"not sent, the server had left {STRIKES} prompts without an answer"
                return {"status": None, "body": "", "why": why, "sent": False}
            outcome: Outcome = {}
            for again in range(self._tries):
                if again:
                    pause = outcome.get("retry_after") or self._wait * 2 ** (again - 1)
                    await asyncio.sleep(min(pause, LONGEST_WAIT))
                await self._turn()
                outcome = await try_once(http, "POST", url, body)
                if outcome["status"] not in AWAY and outcome["status"] < 500:
                    break
            self._strikes = self._strikes + 1 if outcome["status"] in AWAY else 0
            return {**outcome, "sent": True}

    async def _turn(self) -> None:
        """Wait until the next request may start."""
        now = asyncio.get_running_loop().time()
        start = max(self._next, now)
        self._next = start + self._pause
        if start > now:
            await asyncio.sleep(start - now)


class Session:
    """The part of aiohttp.ClientSession that the stage uses."""

    def __init__(self, client: Client, http: Any) -> None:
        self._client = client
        self._http = http

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    def post(self, url: str, *, data: str, **_: object) -> asyncio.Task[Reply]:
        """`data` is JSON of a JSON text: Arrow would fill the gaps of ragged bodies with nulls."""
        return asyncio.ensure_future(self._reply(url, json.loads(json.loads(data))))

    async def _reply(self, url: str, body: Any) -> Reply:
        return Reply(await self._client.ask(self._http, url, body))


class Reply:
    """What the stage takes for a response: always good, its JSON one text."""

    status = 200

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    async def __aenter__(self) -> Reply:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def json(self) -> dict[str, str]:
        return {"outcome": json.dumps(self._outcome)}


async def try_once(http: Any, method: str, url: str, body: Any) -> Outcome:
    """One request. A response of any kind has a status, everything else a `why`."""
    import aiohttp

    sent = {"body": "", "sent": True}
    try:
        async with http.request(method, url, json=body, allow_redirects=False) as response:
            text = (await response.read()).decode("utf-8", "replace")
            wait = response.headers.get("Retry-After", "")
            found = {"status": response.status, "body": text}
            return {**sent, **found, "retry_after": int(wait) if wait.isdecimal() else None}
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        return {"status": None, "body": "", "why": str(error), "sent": False}
    except TimeoutError:
        return {**sent, "status": None, "why": f"no answer within {http.timeout.total:g} s"}
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return {**sent, "status": None, "why": f"{type(error).__name__}: {error}"}


def _message(body: str) -> str:
    """What the server says in a body that is no answer."""
    try:
        found = json.loads(body)
    except ValueError:
        return f"not JSON: {body}" if body.strip() else "an empty body"
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    return found if isinstance(found, str) else f"no choices in {json.dumps(found)}"


def one_line(text: str) -> str:
    """One line of at most 300 characters."""
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:300] + "..."


def shown(url: str) -> str:
    """Without query and fragment."""
    return urlsplit(url)._replace(query="", fragment="").geturl()
