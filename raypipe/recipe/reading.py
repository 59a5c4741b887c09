"""Frozen configuration: YAML recipes, dotted overrides, readable errors, digests.

Every choice of raypipe (loss, sampler, source, teacher) is a subclass of `Config`: typed fields
with bounds, and one verb. A field marked `NOT_SEMANTIC` changes where or how fast something is
computed, never what, and so stays out of digests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from raypipe.config import C, Config, ConfigError, nearest
from raypipe.recipe.errors import _explain, _field_type, _mapping_value, _models


class _Loader(yaml.SafeLoader):
    """YAML 1.1's float pattern refuses 1e-5; recipes are full of it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> Any:
    """Safe YAML, with 1e-5 read as a number."""
    return yaml.load(text, Loader=_Loader)


def load(cls: type[C], path: str | Path, overrides: Iterable[str] = ()) -> C:
    """Read a recipe, with the `base` that it changes; apply `a.b=c` overrides, validate.

    Raises:
        ConfigError: the file is missing or not YAML, a key or value is unknown or out of range.
    """
    path = Path(path)
    tree = _read(path, ())
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(
                f"override {text!r}: expected key=value, such as stages.distil.lr=2e-5"
            )
        try:
            tree = override(cls, tree, key.strip(), parse_yaml(value))
        except yaml.YAMLError:
            raise ConfigError(f"override {text!r}: the value is not valid YAML") from None
    return validate(cls, expand_variables(tree, ""), str(path))


BASE = "base"
"""A recipe's key for the file it changes, relative to its own place."""


def _read(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    if not path.is_file():
        near = nearest(path.name, [p.name for p in path.parent.glob("*.yaml")])
        of = f" (the base of {below[-1]})" if below else ""
        raise ConfigError(f"no recipe at {path}{of}{near}")
    if path.resolve() in [one.resolve() for one in below]:
        raise ConfigError(f"{path}: is its own base, by way of {', '.join(map(str, below))}")
    try:
        tree = parse_yaml(path.read_text("utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of fields, found {type(tree).__name__}")
    if (base := tree.pop(BASE, None)) is None:
        return tree
    named = Path(expand_variables(str(base), f"{path}: {BASE}")).expanduser()
    return merged(_read(path.parent / named, (*below, path)), tree)


def merged(tree: Mapping[str, Any], changes: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """`tree` with the fields that `changes` names.

    Mappings are merged field by field, but one with another `type` takes the old one's place, and
    so do an empty one and a sweep's whole space: what varies is no sum of two.
    """
    out = dict(tree)
    for key, value in changes.items():
        old, path = out.get(key), f"{where}.{key}".lstrip(".")
        other = (
            isinstance(value, Mapping)
            and isinstance(old, Mapping)
            and (
                path == "sweep.space"
                or not value
                or value.get("type", old.get("type")) != old.get("type")
            )
        )
        if isinstance(value, Mapping) and isinstance(old, Mapping) and not other:
            out[key] = merged(old, value, path)
        else:
            out[key] = value
    return out


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def expand_variables(tree: Any, where: str) -> Any:
    """`${NAME}` and `${NAME:-default}` in every string, from the environment of this process.

    A recipe can so name a folder of data without a path of one machine.

    Raises:
        ConfigError: a variable is not set and has no default.
    """
    if isinstance(tree, Mapping):
        items = {k: expand_variables(v, f"{where}.{k}".lstrip(".")) for k, v in tree.items()}
        return items
    if isinstance(tree, list):
        return [expand_variables(one, where) for one in tree]
    if not isinstance(tree, str):
        return tree

    def value(found: re.Match[str]) -> str:
        name, default = found.groups()
        if name in os.environ:
            return os.environ[name]
        if default is None:
            raise ConfigError(f"{where}: the environment variable {name} is not set; export {name}")
        return os.path.expanduser(default)

    return _VARIABLE.sub(value, tree)


def validate(cls: type[C], tree: Mapping[str, Any], where: str) -> C:
    """`cls` from a plain tree; a `ConfigError` names every wrong field by its dotted path."""
    try:
        return cls.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(cls, dict(item)) for item in error.errors()]
        raise ConfigError(f"{where}: " + "\n".join(dict.fromkeys(lines))) from None


def override(cls: type[Config], tree: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of `tree` with the dotted `key` set. A changed `type` drops the old choice's fields.

    Raises:
        ConfigError: a part of the key is neither a field nor an existing name of a mapping.
    """
    head, *rest = key.split(".")
    return _override(cls, tree, [head, *rest], value, key)


def _override(kind: Any, tree: Any, parts: list[str], value: Any, key: str) -> dict[str, Any]:
    out = dict(tree) if isinstance(tree, Mapping) else {}
    head, *rest = parts
    named = _mapping_value(kind)
    if named is not None and not _models(named):  # free keys, which may hold dots: sweep.space
        return {**out, ".".join(parts): value}
    if named is not None and head not in out and (rest or not isinstance(value, Mapping)):
        raise ConfigError(f"{key}: there is no {head!r} here{nearest(head, out)}")
    if rest:
        child = named if named is not None else _field_type(kind, head)
        inner = out[head] if head in out else _field_default(kind, head)
        out[head] = _override(child, inner, rest, value, key)
    elif head == "type" and out.get("type") != value:
        out = {"type": value}
    else:
        out[head] = value
    return out


def _field_default(kind: Any, name: str) -> Any:
    """The default of a field that a recipe does not write, so that a part of it can be set."""
    for model in _models(kind):
        if name in model.model_fields:
            default = model.model_fields[name].default
            return default.model_dump(mode="json") if isinstance(default, Config) else None
    return None
