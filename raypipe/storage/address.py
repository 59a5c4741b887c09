"""Addresses that users type, which may hold keys: as text they are masked, wherever they go.

    s3://***@bucket/prefix?secret_key=***    what str, repr, logs, JSON, YAML and pickles hold
    s3://AKIA:secret@bucket/prefix?...       what `reveal` gives to whoever opens it

A job's other processes get what was typed from `keys`, in memory alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from raypipe.config import ConfigError
from raypipe.names import quoted
from raypipe.storage import keys, masking
from raypipe.storage.masking import MASK, mask, without_secrets

_PROCESS = os.urandom(16)
"""Makes this process's handles, which tell nobody what was typed."""
_masks_allowed: ContextVar[bool] = ContextVar("masks_allowed", default=False)


class Address(str):
    """A place as its user typed it; as a string it is masked.

    A pickle holds the mask and a handle, which `keys` knows while the job lives. Equal addresses
    are those that were typed alike.

    Raises:
        ConfigError: the text is a mask, so that nothing could be opened with it.
    """

    handle: str | None
    """What other processes ask for the address by; None if nothing in it is masked."""
    _typed: str | None

    def __new__(cls, text: str) -> Address:
        if isinstance(text, Address):
            return text
        masked = MASK in text
        if masked and not _masks_allowed.get():
            raise ConfigError(
                f"the address {mask(text)!r} is masked: expected it with its keys, which were "
                "written down nowhere; type them again, or leave them to the environment"
            )
        shown = mask(text)
        return _address(shown, None if masked else text, None if shown == text else _handle(text))

    @property
    def hides(self) -> bool:
        """Whether something is masked."""
        return self.handle is not None

    def reveal(self) -> str:
        """What was typed, for whoever opens it; nothing else may hold it.

        Raises:
            ConfigError: nobody knows it any more.
        """
        if self._typed is None and self.handle is not None:
            self._typed = keys.typed(self.handle)
        if self._typed is None:
            raise ConfigError(
                f"the address {str(self)!r} is masked, and no job that lives knows its keys; type "
                "it again"
            )
        return self._typed

    @property
    def place(self) -> str:
        """Scheme, host and path alone, for links and messages."""
        start, _, host = str(self).partition("?")[0].partition("#")[0].rpartition(f"{MASK}@")
        return start + host

    def below(self, path: str) -> Address:
        """The address of a path below, with the parameters of this one."""
        return Address(masking.below(self.reveal(), path))

    def shown_below(self, path: str) -> str:
        """The masked address of a path below. The path is raypipe's own, and stays as it is."""
        return masking.below(str(self), path)

    def clean(self, text: str) -> str:
        """Words of others, such as an error's, without the secrets of this address or another."""
        if self._typed is not None and self.hides:
            text = text.replace(self._typed, str(self))
            for part in sorted(masking.secret_parts(self._typed), key=len, reverse=True):
                text = text.replace(part, MASK)
        return without_secrets(text)

    def __eq__(self, other: object) -> bool:
        return self._compared() == (other._compared() if isinstance(other, Address) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._compared())

    def _compared(self) -> str:
        return str(self) if self._typed is None else self._typed

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        shown = str(self)
        return _address, (shown, None if self.hides else shown, self.handle)

    def __copy__(self) -> Address:
        return self

    def __deepcopy__(self, memo: Any) -> Address:
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_validated)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string"}


def _address(shown: str, typed: str | None, handle: str | None) -> Address:
    address = str.__new__(Address, shown)
    address._typed, address.handle = typed, handle
    return address


def _handle(text: str) -> str:
    """Of equal texts the same, so that one that is read anew is known, too."""
    content = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, key=_PROCESS, digest_size=16).hexdigest()


def _validated(value: Any) -> Address:
    if not isinstance(value, str):
        raise ValueError("expected an address as text")
    return Address(value)


@contextlib.contextmanager
def masks_allowed() -> Iterator[None]:
    """In the body, a recipe with masked addresses can be read; they cannot be opened."""
    token = _masks_allowed.set(True)
    try:
        yield
    finally:
        _masks_allowed.reset(token)


def addresses(value: Any) -> Iterator[Address]:
    """Every address in a configuration, at any depth."""
    if isinstance(value, Address):
        yield value
    elif isinstance(value, BaseModel):
        yield from addresses(dict(value))
    elif isinstance(value, Mapping):
        yield from addresses(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from addresses(item)


def typed_addresses(value: Any, named: bool = False) -> Any:
    """Plain values of a recipe, those of `url`, `storage` and `tracking` as addresses.

    Args:
        named: whether the value stands below such a key.
    """
    if isinstance(value, str) and named:
        return Address(value)
    if isinstance(value, Mapping):
        return {
            key: typed_addresses(item, named or _names_address(key)) for key, item in value.items()
        }
    if isinstance(value, list):
        return [typed_addresses(item, named) for item in value]
    return value


def _names_address(key: Any) -> bool:
    return str(key).rpartition(".")[2] in ("url", "storage", "tracking")


def shown_value(value: Any) -> str:
    """A value that somebody wrote into a field, for an error."""
    if isinstance(value, str):
        return quoted(mask(value) if "://" in value else without_secrets(value))
    return without_secrets(quoted(value))
