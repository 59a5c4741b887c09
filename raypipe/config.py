"""Frozen configuration and its digests.

Every choice of raypipe (loss, sampler, source, teacher) is a subclass of `Config`: typed fields
with bounds, and one verb. A field marked `NOT_SEMANTIC` changes where or how fast a step computes,
never its result, and so stays out of digests.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict

NOT_SEMANTIC = "not semantic"
"""Marker for `Annotated[T, NOT_SEMANTIC]`: the field never enters a digest."""

C = TypeVar("C", bound="Config")


class ConfigError(ValueError):
    """A recipe, an override or an input is wrong; the text says where, and what to do."""


class Config(BaseModel):
    """Base of every configuration class: frozen, unknown keys refused, field docstrings kept."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        hide_input_in_errors=True,  # a key pasted into the wrong field would be shown
    )

    version: ClassVar[int] = 1
    """Raise it when behaviour behind the same fields changes: then no old artifact is reused."""

    def semantic(self) -> dict[str, Any]:
        """Class name, version, and the fields that decide the result, as plain JSON values."""
        fields = {
            name: _plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if NOT_SEMANTIC not in field.metadata
        }
        return {"class": type(self).__name__, "version": self.version, **fields}

    def part(self, base: type[C]) -> C:
        """The fields of `base`, a class that this one extends, as a config of that class."""
        return base(**{name: getattr(self, name) for name in base.model_fields})

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        return type(self).model_validate({**dict(self), **changes})


def _plain(value: Any) -> Any:
    """The value with configurations, mappings and tuples as JSON has them."""
    if isinstance(value, Config):
        return value.semantic()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


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
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    listed = ", ".join(names[:60]) + (f" and {len(names) - 60} more" if len(names) > 60 else "")
    return f"; valid: {listed}" if names else ""
