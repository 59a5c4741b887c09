"""What can stand in a recipe, read from the fields themselves: types, bounds, defaults, meanings.

`entries` is the one list from which `explain`, the reference page and the comments of
`--print-config` are made; `json_schema` is for editors.
"""

from __future__ import annotations

import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from raypipe.config import NOT_SEMANTIC, Config
from raypipe.plugins.choice import FORM, OrPlugIn, plugins_of
from raypipe.recipe.experiment import Experiment

WIDTH = 100
NAME = "NAME"
"""Stands in a key for a name that the recipe chooses, such as a stage's."""
SUMMED_UP = {"teachers", "terms", "sources", "parts"}
"""Fields whose members have the fields of the choice that they stand in."""


@dataclass(frozen=True)
class RecipeField:
    """One field of a recipe."""

    key: str
    """Dotted, with `NAME` for chosen names."""
    choice: str
    """The `type` of the choice that the field belongs to; empty outside of choices."""
    kind: str
    """What may stand there, in words."""
    default: str
    """As YAML has it; empty where the field must be given."""
    meaning: str
    decides: bool
    """Whether the field is part of digests, so that another value makes other artifacts."""
    choices: tuple[type[Config], ...] = ()
    """The classes of a field with a `type`."""
    plugins: tuple[OrPlugIn, ...] = ()
    """What classes of the user's may stand there."""


def entries() -> list[RecipeField]:
    """Every field, in the order of the classes; a class within itself is not entered again."""
    return list(_fields(Experiment, "", "", (), True))


def _fields(
    cls: type[Config], prefix: str, choice: str, above: tuple[type, ...], decides: bool
) -> Iterator[RecipeField]:
    for name, field in cls.model_fields.items():
        if name == "type":
            continue
        members = _models(field.annotation)
        key = f"{prefix}{name}"
        yield RecipeField(
            key,
            choice,
            _kind(field),
            _default(field),
            " ".join((field.description or "").split()),
            own := decides and NOT_SEMANTIC not in field.metadata,
            tuple(m for m in members if type_of(m)),
            plugins_of(field),
        )
        inner = f"{key}.{NAME}." if _is_mapping(field.annotation) else f"{key}."
        for member in members:
            if member not in above and name not in SUMMED_UP:
                yield from _fields(member, inner, type_of(member), (*above, cls, member), own)


def _models(annotation: Any) -> list[type[Config]]:
    """The configurations in an annotation, at any depth, in order."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return list(dict.fromkeys(m for part in get_args(annotation) for m in _models(part)))


def _is_mapping(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return True
    unions = (Union, types.UnionType, Annotated)
    return origin in unions and any(_is_mapping(part) for part in get_args(annotation))


def type_of(cls: type[BaseModel]) -> str:
    """The word that names the choice as `type`; empty for a class that is no choice."""
    field = cls.model_fields.get("type")
    words = get_args(field.annotation) if field is not None else ()  # none of an abstract base
    return str(words[0]) if words else ""


def _kind(field: FieldInfo) -> str:
    words = _with_form(_words(field.annotation), field)
    bounds = []
    for constraint in field.metadata:
        for sign, name in ((">=", "ge"), (">", "gt"), ("<=", "le"), ("<", "lt")):
            if (bound := getattr(constraint, name, None)) is not None:
                bounds.append(f"{sign} {bound:g}")
        if (least := getattr(constraint, "min_length", None)) is not None:
            bounds.append(f"at least {least}")
    return ", ".join([words, *bounds])


def _with_form(words: str, part: Any) -> str:
    """The words for what may stand somewhere, with the form of a plug-in if one may."""
    plugin = next(iter(plugins_of(part)), None)
    if plugin is None or FORM in words:
        return words
    return f"{FORM} | {words}".replace(" | a mapping", "") if plugin.only else f"{words} | {FORM}"


def _words(annotation: Any) -> str:
    """A type in words that a newcomer knows."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        own = any(isinstance(part, OrPlugIn) for part in parts)
        return _with_form(_words(parts[0]), annotation) if own else _words(parts[0])
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (Union, types.UnionType):
        models = [part for part in map(_strip, parts) if _is_config(part)]
        words = [_words(part) for part in parts if not _is_config(_strip(part))]
        choice = [type_of(model) or "a mapping" for model in models]
        return " | ".join(dict.fromkeys([*choice, *words]))
    if origin in (tuple, list):
        return f"a list of {_words(parts[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping of names to {_words(parts[1])}"
    if _is_config(annotation):
        return type_of(annotation) or "a mapping"
    plain = {int: "whole number", float: "number", str: "text", bool: "true | false"}
    return "null" if annotation is type(None) else plain.get(annotation, "text")


def _strip(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _is_config(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Config)


def _default(field: FieldInfo) -> str:
    value = field.default if field.default is not PydanticUndefined else None
    if field.is_required():
        return ""
    if field.default_factory is not None:
        value = field.default_factory()  # type: ignore[call-arg]
    if isinstance(value, Config):
        return f"{{type: {type_of(type(value))}}}" if type_of(type(value)) else "{}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value) if value != "" else '""'


def classes() -> dict[type[Config], list[str]]:
    """Every class of a recipe with the keys at which it may stand, in order of first use."""
    found: dict[type[Config], list[str]] = {Experiment: [""]}
    waiting: list[type[Config]] = [Experiment]
    for cls in waiting:
        for name, field in cls.model_fields.items():
            before = "" if cls is Experiment else f"{type_of(cls) or found[cls][0]}."
            for member in _models(field.annotation):
                if member not in found:
                    waiting.append(member)
                found.setdefault(member, []).append(f"{before}{name}")
    return found


def own_entries(cls: type[Config]) -> list[RecipeField]:
    """The fields of one class, without those of the classes within."""
    return [entry for entry in _fields(cls, "", type_of(cls), (), True) if "." not in entry.key]


def about(cls: type[Config]) -> str:
    """The first paragraph of what a choice's class says of itself."""
    text = inspect.getdoc(cls) or ""
    return " ".join(text.partition("\n\n")[0].split())


def commented_yaml(config: Config) -> str:
    """As `to_yaml`, with every field's meaning as a comment above it."""
    return "\n".join(_commented(config, "")) + "\n"


def _commented(config: Config, indent: str) -> Iterator[str]:
    dumped = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        if field.exclude:  # a default that recipes leave out
            continue
        value, inner = getattr(config, name), indent + "  "
        meaning = " ".join((field.description or "").split())
        yield from textwrap.wrap(
            meaning, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        if isinstance(value, Config) and type(value).model_fields:
            yield f"{indent}{name}:"
            yield from _commented(value, inner)
        elif isinstance(value, Mapping) and any(isinstance(v, Config) for v in value.values()):
            yield f"{indent}{name}:"
            for key, item in value.items():
                yield f"{inner}{yaml.safe_dump({key: 0}, allow_unicode=True)[: -len(' 0') - 1]}"
                yield from _commented(item, inner + "  ")
        else:
            text = yaml.safe_dump({name: dumped[name]}, sort_keys=False, allow_unicode=True)
            yield textwrap.indent(text.rstrip("\n"), indent)


def json_schema() -> dict[str, Any]:
    """A JSON schema of recipes for editors; what a field requires may stand in the `base`."""
    schema = Experiment.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        part.pop("required", None)
        _any_of(part)
    for name in ("reference", "order"):  # one name for a list of one
        field = schema["properties"][name]
        schema["properties"][name] = {"anyOf": [field, {"type": ["string", "null"]}]}
    model = schema["properties"]["model"]  # a cross-encoder needs no type
    model["anyOf"] = model.pop("oneOf")
    del model["discriminator"]
    tracking = schema["properties"]["tracking"]  # an address alone will do
    published = schema["properties"]["published"]  # a file's name will do
    schema["properties"]["published"] = {
        "anyOf": [published, {"type": "string"}],
        "description": published.get("description", ""),
    }
    schema["properties"]["tracking"] = {
        "anyOf": [tracking, {"type": ["string", "null"]}],
        "description": tracking.get("description", ""),
    }
    schema["properties"]["base"] = {
        "type": "string",
        "description": "Another recipe, whose fields stand where this one has none.",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _any_of(part: Any) -> None:
    """Let a mapping without `type` be any set of queries: which one it is, its `base` may say."""
    if isinstance(part, dict):
        if "oneOf" in part and "discriminator" not in part:
            part["anyOf"] = part.pop("oneOf")
        for inner in part.values():
            _any_of(inner)
    elif isinstance(part, list):
        for inner in part:
            _any_of(inner)
