"""Errors of a recipe as its author reads them: dotted path, what was expected, what was found.

pydantic reports a wrong field by its path through models and union tags; a recipe has only keys.
The functions here walk the annotations of config classes, so they can tell keys from tags and name
the fields that are valid at a path.
"""

from __future__ import annotations

import contextlib
import re
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from raypipe.config import Config, ConfigError, nearest
from raypipe.names import quoted, shortened
from raypipe.plugins.choice import REFUSED, OrPlugIn, plugins_of
from raypipe.plugins.loading import is_plugin_name
from raypipe.recipe.foreign_names import unknown_key
from raypipe.storage.address import shown_value

_KEY = "[key]"
"""What pydantic puts behind the key of a mapping when the key itself is wrong."""


def explain(cls: type[Config], item: Mapping[str, Any]) -> str:
    """One of pydantic's errors as a sentence: the dotted path, and what is wrong there.

    Args:
        cls: the class that was validated.
        item: an entry of `ValidationError.errors()`.
    """
    loc, value, kind = item["loc"], item["input"], item["type"]
    loc = loc[:-1] if loc[-1:] == (_KEY,) else loc
    path = ".".join(map(shortened, _walk(cls, loc)[1])) or "the recipe"
    found = f", found {shown_value(value)}" if not isinstance(value, Mapping) else ""
    if kind == "extra_forbidden":
        key, parents = str(loc[-1]), _walk(cls, loc[:-1])[0]
        valid = {name for model in parents for name in model.model_fields}
        return unknown_key(path, key, valid)
    if kind == "union_tag_invalid":
        tag, tags = str(item["ctx"]["tag"]), _quoted(item["ctx"]["expected_tags"])
        return f"{path}.type: unknown value {quoted(tag)}{nearest(tag, tags)}"
    if kind == "union_tag_not_found":
        return f"{path}: expected a mapping with a `type`{found}"
    if kind == REFUSED:
        return f"{path}: {item['msg']}"
    if kind in ("literal_error", "enum"):
        options = _quoted(item["ctx"]["expected"])
        return f"{path}: unknown value {shown_value(value)}{nearest(str(value), options)}"
    message = item["msg"].removeprefix("Value error, ")
    head, colon, rest = message.partition(": ")
    field, models_here = head.split(".")[0], _walk(cls, loc)[0]
    if colon and any(field in m.model_fields for m in models_here):
        path = f"{path}.{head}" if loc else head  # a check of several fields names one of its own
        message = rest
    found = "" if ", found " in message else found
    return f"{path}: {message[0].lower() + message[1:]}{found}"


def _quoted(text: Any) -> list[str]:
    """The names that pydantic lists in quotes."""
    return re.findall(r"'([^']*)'", str(text))


def _walk(kind: Any, loc: Iterable[Any]) -> tuple[list[type[BaseModel]], list[str]]:
    """Follow a pydantic error path: the models it ends at, and the path without union tags."""
    path: list[str] = []
    for part in loc:
        tagged = [m for m in models(kind) if part in _tags(m) or part == m.__name__]
        if is_plugin_name(part) and (plugin := _plugin(kind, part)) is not None:
            kind = plugin
            continue
        if tagged and len(_alternatives(kind)) > 1:
            kind = tagged[0]
            continue
        path.append(str(part))
        inner = mapping_value(kind)
        if inner is None and isinstance(part, int):
            lists = [get_args(alternative) for alternative in _alternatives(kind)]
            inner = next((args[0] for args in lists if args), None)
        kind = inner if inner is not None else field_type(kind, str(part))
    return models(kind), path


def _plugin(kind: Any, name: str) -> type[BaseModel] | None:
    """The plug-in that was loaded for a union; None if `name` is another part of a path."""
    for union in plugins_of(kind) if mapping_value(kind) is None else ():
        with contextlib.suppress(ConfigError):
            plugin: type[BaseModel] = union.load(name)
            return plugin
    return None


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("type")
    return get_args(field.annotation) if field else ()


# --- what an annotation allows --------------------------------------------------------------------


def models(kind: Any) -> list[type[BaseModel]]:
    """The config classes among the alternatives of an annotation."""
    return [m for m in _alternatives(kind) if isinstance(m, type) and issubclass(m, BaseModel)]


def field_type(kind: Any, name: str) -> Any:
    """The annotation of a field of one of the alternatives; None if none has it."""
    fields = (model.model_fields.get(name) for model in models(kind))
    field = next((field for field in fields if field is not None), None)
    if field is None:
        return None
    plugins = [part for part in field.metadata if isinstance(part, OrPlugIn)]
    return Annotated[field.annotation, *plugins] if plugins else field.annotation


def mapping_value(kind: Any) -> Any:
    """The annotation of the values where a mapping is among the alternatives; else None."""
    for alternative in _alternatives(kind):
        if get_origin(alternative) in (dict, Mapping) and get_args(alternative):
            return get_args(alternative)[1]
    return None


def _alternatives(kind: Any) -> list[Any]:
    """What stands behind Annotated and unions; a plain type is its own only alternative."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [alternative for arg in get_args(kind) for alternative in _alternatives(arg)]
    return [kind]
