"""A server that a recipe names: where it is, its key, and how patiently it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from raypipe.config import NOT_SEMANTIC, Config, ConfigError
from raypipe.inference.llm.api_keys import read_key
from raypipe.inference.llm.http_client import LONGEST_WAIT, Client, Scheme
from raypipe.storage.address import Address

REMEDIES: Mapping[str, str] = {
    "401": "set api_key_env to the variable that holds a valid key",
    "403": "set api_key_env to the variable that holds a key with this right",
}
"""What to do about a server that refuses, by its status."""


class ServerOptions(Config):
    """Base of the configs that ask an HTTP server; none of its fields changes an answer.

    Proxies of the environment are not used, redirects are not followed, so that key and requests
    stay with the server they were meant for.
    """

    type: str
    """Declared here, so that recipes are printed with `type` before these fields."""
    url: Annotated[Address, NOT_SEMANTIC]
    """Address of the server."""
    api_key_env: Annotated[str | None, NOT_SEMANTIC] = None
    """Name (in capitals) of the environment variable that holds the key; never the key. One that
    begins with RAYPIPE_, one of those that RAYPIPE_ALLOW_ENV lists, or, for a language model, one
    of `api_keys.KNOWN`."""
    concurrency: Annotated[int, Field(ge=1, le=1024), NOT_SEMANTIC] = 8
    """Requests in flight; one that waits for its next try counts."""
    requests_per_second: Annotated[float | None, Field(gt=0), NOT_SEMANTIC] = None
    """Starts of requests, retries included; null is as many as `concurrency` allows."""
    retries: Annotated[int, Field(ge=0, le=20), NOT_SEMANTIC] = 5
    """Further tries of a request after 408, 429, 5xx, a time-out or a broken connection."""
    retry_wait_s: Annotated[float, Field(ge=0, le=LONGEST_WAIT), NOT_SEMANTIC] = 1.0
    """Seconds before the first retry; doubled each time, up to 60. A Retry-After header wins."""
    timeout_s: Annotated[float, Field(gt=0), NOT_SEMANTIC] = 120.0
    """Seconds for one try, from the connection to the last byte."""

    whose: ClassVar[str]
    """Begins every error."""
    remedies: ClassVar[Mapping[str, str]]
    """Further ones, or other ones than `REMEDIES`; "" is that of all statuses without one."""

    @property
    def endpoint(self) -> Address:
        """Where requests go."""
        raise NotImplementedError

    def key(self) -> str | None:
        """The key, read now.

        Raises:
            ConfigError: the variable is not set, or holds what no header can.
        """
        return read_key(self.api_key_env, self.whose)

    def check(self) -> None:
        """The key is there. Whether the server is, is seen when it is asked.

        Raises:
            ConfigError: it is not.
        """
        self.key()

    def connect(self, knock_at: Address, scheme: Scheme = "Bearer") -> Client:
        """A client, after the server has been seen.

        Args:
            knock_at: an address of the server that may answer with any status but 401.
            scheme: how the key is sent.

        Raises:
            ConfigError: no server is there, its certificate does not fit, or it refuses the key.
        """
        client = Client(
            self.key(),
            concurrency=self.concurrency,
            requests_per_second=self.requests_per_second,
            retries=self.retries,
            retry_wait_s=self.retry_wait_s,
            timeout_s=self.timeout_s,
            clean=self.url.clean,
            scheme=scheme,
        )
        knock = client.get(knock_at.reveal())
        if not knock.connected:
            raise ConfigError(
                f"{self.whose}: no connection to {self.endpoint.place} ({client.clean(knock)}); "
                "start the server or correct its url"
            )
        if knock.status == 401:
            raise self.refusal(client.clean(knock))
        return client

    def refusal(self, words: str) -> ConfigError:
        """The error for a server that refuses this config.

        Args:
            words: of the server, behind its status: "404: no such model".
        """
        remedies = {**REMEDIES, **self.remedies}
        remedy = remedies.get(words.partition(":")[0], remedies[""])
        return ConfigError(f"{self.whose}: {self.endpoint.place} refused: {words}; {remedy}")

    def no_answer(self, why: str) -> RuntimeError:
        """The error for a server that is not there any more, or stays busy."""
        return RuntimeError(
            f"no answer from {self.endpoint.place} after {self.retries + 1} tries of a request "
            f"({why}); finished chunks are kept, run the same command again"
        )
