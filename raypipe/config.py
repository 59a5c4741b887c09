"""Frozen configuration and its digests.

Every choice of raypipe (loss, sampler, source, teacher) is a subclass of `Config`: typed fields
with bounds, and one verb. A field marked `NOT_SEMANTIC` changes where or how fast a step computes,
never its result, and so stays out of digests.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from raypipe.names import quoted

NOT_SEMANTIC = "not semantic"
"""Marker for `Annotated[T, NOT_SEMANTIC]`: the field never enters a digest."""

UNLESS_DEFAULT = "unless default"
"""Marker for `Annotated[T, UNLESS_DEFAULT]`: the field enters digests only where it is set, because
it came later and artifacts made before keep their digests."""

LARGEST_INTEGER = 2**32 - 1
"""The most of a whole number in a recipe: numpy takes no larger seeds, the product of two such
numbers fits 64 bits, and no count of steps, queries or tokens comes near."""

C = TypeVar("C", bound="Config")


class ConfigError(ValueError):
    """A recipe, an override or an input is wrong; the text says where, and what to do."""


class Config(BaseModel):
    """Base of every configuration class: frozen, unknown keys refused, field docstrings kept.

    Numbers are finite, and neither booleans nor text with underscores are numbers.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        hide_input_in_errors=True,  # a key pasted into the wrong field would be shown
        allow_inf_nan=False,
    )

    version: ClassVar[int] = 1
    """Raise it when behaviour behind the same fields changes: then no old artifact is reused."""

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, data: Any) -> Any:
        for name, value in data.items() if isinstance(data, Mapping) else ():
            kinds = _scalars(cls, name) if name in cls.model_fields else frozenset()
            for where, item in _leaves(value, name) if kinds & {int, float, Any} else ():
                if problem := _no_number(item, kinds):
                    raise ValueError(f"{where}: {problem}")
        return data

    def semantic(self) -> dict[str, Any]:
        """Class name, version, and the fields that decide the result, as plain JSON values."""
        fields = {
            name: _plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if NOT_SEMANTIC not in field.metadata
            and not (UNLESS_DEFAULT in field.metadata and getattr(self, name) == field.default)
        }
        return {"class": type(self).__name__, "version": self.version, **fields}

    def part(self, base: type[C]) -> C:
        """The fields of `base`, a class that this one extends, as a config of that class."""
        return base(**{name: getattr(self, name) for name in base.model_fields})

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        return type(self).model_validate({**dict(self), **changes})


@contextlib.contextmanager
def blamed_on(path: str) -> Iterator[None]:
    """Errors of the body begin with the dotted path of the field that named what is wrong."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _plain(value: Any) -> Any:
    """The value with configurations, mappings and tuples as JSON has them."""
    if isinstance(value, Config):
        return value.semantic()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


@functools.cache
def _scalars(cls: type[Config], name: str) -> frozenset[Any]:
    """The plain types in a field's annotation, at any depth, `Any` among them; none where it holds
    models, which look at their own fields."""
    types: set[Any] = set()
    waiting: list[Any] = [cls.model_fields[name].annotation]
    while waiting:
        kind = waiting.pop()
        if parts := get_args(kind):
            waiting += parts
        else:
            types.add(kind)
    holds_models = any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in types)
    return frozenset() if holds_models else frozenset(types)


def _leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of everything in lists and mappings."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _leaves(item, f"{where}.{position}")
    else:
        yield where, value


def _no_number(value: Any, kinds: frozenset[Any]) -> str:
    """Why a value is none for a field of numbers, or of anything; pydantic says the rest."""
    if Any in kinds:
        finite = not isinstance(value, float) or math.isfinite(value)
        return "" if finite else f"expected a finite number, found {value}; write one"
    if isinstance(value, bool) and bool not in kinds:
        return f"expected a number, found {str(value).lower()}; write 1 or 0 if you mean those"
    if isinstance(value, str) and str not in kinds and "_" in value:
        return "expected a number in digits, found text with an underscore; leave it out"
    if isinstance(value, int | float) and float not in kinds and value > LARGEST_INTEGER:
        return f"expected at most {LARGEST_INTEGER:,}, found {quoted(value)}; lower it"
    return ""


def digest(value: Any, length: int = 16) -> str:
    """Hexadecimal SHA-256 of a JSON-able value in canonical form, cut to `length` digits."""
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def to_yaml(config: Config) -> str:
    """The whole configuration, defaults included, as YAML that `load` reads back, unless an address
    in it is masked."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flatten(value: Any, prefix: str = "") -> dict[str, str | int | float | bool | None]:
    """Scalars by dotted key; a list becomes one JSON text, so that every value fits one cell."""
    if isinstance(value, Config):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        flat: dict[str, str | int | float | bool | None] = {}
        for key, item in value.items():
            flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: json.dumps(value) if isinstance(value, list | tuple) else value}


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of an error: the nearest valid name, or a list of all; empty if there are none."""
    names = sorted({str(v) for v in valid})
    if close := near(name, names):
        return f"; did you mean {close[0]!r}?"
    listed = ", ".join(names[:60]) + (f" and {len(names) - 60} more" if len(names) > 60 else "")
    return f"; valid: {listed}" if names else ""


def twice_in(names: Iterable[str]) -> str | None:
    """The first name that stands there a second time; None if there is none."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def near(name: str, names: Iterable[str], most: int = 1) -> list[str]:
    """The valid names that are most like another, best first; `InfoNCE` is `infonce`."""
    valid = list(names)
    by_letters = {plain_letters(text): text for text in valid}
    letters = plain_letters(name)
    found = [by_letters[letters]] if letters in by_letters else []
    found += difflib.get_close_matches(name, valid, most, cutoff=0.6)
    close = difflib.get_close_matches(letters, by_letters, most, cutoff=0.6)
    return list(dict.fromkeys([*found, *(by_letters[text] for text in close)]))[:most]


def plain_letters(name: str) -> str:
    """A name without what people write in different ways: upper case, hyphens, underscores."""
    return re.sub("[-_ ]", "", name).casefold() or name
