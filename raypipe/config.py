"""Frozen configuration: YAML recipes, dotted overrides, readable errors, digests.

Every choice of raypipe (loss, sampler, source, teacher) is a subclass of `Config`: typed fields
with bounds, and one verb. A field marked `NOT_SEMANTIC` changes where or how fast something is
computed, never what, and so stays out of digests.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

NOT_SEMANTIC = "not semantic"
"""Marker for `Annotated[T, NOT_SEMANTIC]`: the field never enters a digest."""

C = TypeVar("C", bound="Config")


class ConfigError(ValueError):
    """A recipe, an override or an input is wrong: where, what was expected, what to do."""


class Config(BaseModel):
    """Base of every configuration class: frozen, unknown keys refused, field docstrings kept."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )

    version: ClassVar[int] = 1
    """Raised when behaviour behind the same fields changes, so that no old artifact is reused."""

    def semantic(self) -> dict[str, Any]:
        """The fields that decide the result, as plain JSON values, with class name and version."""
        out: dict[str, Any] = {"class": type(self).__name__, "version": self.version}
        for name, field in type(self).model_fields.items():
            if NOT_SEMANTIC not in field.metadata:
                out[name] = _plain(getattr(self, name))
        return out

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        return type(self).model_validate({**dict(self), **changes})


def _plain(value: Any) -> Any:
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


def to_yaml(config: Config) -> str:
    """The whole configuration, defaults included, as YAML that `load` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flatten(value: Any, prefix: str = "") -> dict[str, str | int | float | bool | None]:
    """Dotted keys to scalars; a list becomes one JSON string, so that every value is one cell."""
    if isinstance(value, Config):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        flat: dict[str, str | int | float | bool | None] = {}
        for key, item in value.items():
            flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: json.dumps(value) if isinstance(value, list | tuple) else value}


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


def nearest(name: str, valid: Iterable[str]) -> str:
    """A sentence end that suggests the nearest valid name or lists them all; may be empty."""
    names = sorted({str(v) for v in valid})
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    listed = ", ".join(names[:60]) + (f" and {len(names) - 60} more" if len(names) > 60 else "")
    return f"; valid: {listed}" if names else ""


def _explain(cls: type[Config], item: dict[str, Any]) -> str:
    loc = [str(part) for part in item["loc"]]
    models = _models_at(cls, item["loc"][:-1])
    # pydantic puts a union's tag into the path; a user never wrote it there.
    path = ".".join(_user_path(cls, item["loc"])) or "the recipe"
    found = f", found {item['input']!r}" if not isinstance(item["input"], Mapping) else ""
    kind = item["type"]
    if kind == "extra_forbidden":
        valid = {name for model in models for name in model.model_fields}
        return f"{path}: unknown key {loc[-1]!r}{nearest(loc[-1], valid)}"
    if kind == "union_tag_invalid":
        ctx = item["ctx"]
        tags = re.findall(r"'([^']*)'", str(ctx["expected_tags"]))
        return f"{path}.type: unknown value {ctx['tag']!r}{nearest(str(ctx['tag']), tags)}"
    if kind == "union_tag_not_found":
        return f"{path}: expected a mapping with a `type`{found}"
    if kind in ("literal_error", "enum"):
        options = re.findall(r"'([^']*)'", str(item["ctx"]["expected"]))
        return f"{path}: unknown value {item['input']!r}{nearest(str(item['input']), options)}"
    message = item["msg"].removeprefix("Value error, ")
    head, colon, rest = message.partition(": ")
    inner = _models_at(cls, item["loc"])
    if colon and path != "the recipe" and any(head.split(".")[0] in m.model_fields for m in inner):
        path, message = f"{path}.{head}", rest  # a check of several fields names one of its own
    return f"{path}: {message[0].lower() + message[1:]}{found}"


def _unwrap(kind: Any) -> list[Any]:
    """The alternatives behind Annotated and unions; a plain type is its own only alternative."""
    if get_origin(kind) is Annotated:
        return _unwrap(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [one for arg in get_args(kind) for one in _unwrap(arg)]
    return [kind]


def _mapping_value(kind: Any) -> Any:
    for one in _unwrap(kind):
        if get_origin(one) in (dict, Mapping) and get_args(one):
            return get_args(one)[1]
    return None


def _field_type(kind: Any, name: str) -> Any:
    for one in _unwrap(kind):
        if isinstance(one, type) and issubclass(one, BaseModel) and name in one.model_fields:
            return one.model_fields[name].annotation
    return None


def _field_default(kind: Any, name: str) -> Any:
    """The default of a field that a recipe does not write, so that a part of it can be set."""
    for model in _models(kind):
        if name in model.model_fields:
            default = model.model_fields[name].default
            return default.model_dump(mode="json") if isinstance(default, Config) else None
    return None


def _walk(kind: Any, loc: Iterable[Any]) -> tuple[list[type[BaseModel]], list[str]]:
    """Follow a pydantic error path: the models it ends at, and the path without union tags."""
    path: list[str] = []
    for part in loc:
        models = _models(kind)
        tagged = [m for m in models if part in _tags(m) or part == m.__name__]
        if tagged and len(_unwrap(kind)) > 1:
            kind = tagged[0]
            continue
        path.append(str(part))
        inner = _mapping_value(kind)
        if inner is None and isinstance(part, int):
            inner = next((get_args(o)[0] for o in _unwrap(kind) if get_args(o)), None)
        kind = inner if inner is not None else _field_type(kind, str(part))
    return _models(kind), path


def _models(kind: Any) -> list[type[BaseModel]]:
    return [m for m in _unwrap(kind) if isinstance(m, type) and issubclass(m, BaseModel)]


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("type")
    return get_args(field.annotation) if field else ()


def _models_at(cls: type[Config], loc: Iterable[Any]) -> list[type[BaseModel]]:
    return _walk(cls, loc)[0]


def _user_path(cls: type[Config], loc: Iterable[Any]) -> list[str]:
    return _walk(cls, loc)[1]
