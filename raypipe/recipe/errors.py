"""Frozen configuration: YAML recipes, dotted overrides, readable errors, digests.

Every choice of raypipe (loss, sampler, source, teacher) is a subclass of `Config`: typed fields
with bounds, and one verb. A field marked `NOT_SEMANTIC` changes where or how fast something is
computed, never what, and so stays out of digests.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from raypipe.config import Config, nearest


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
