"""Recipes as they are written: YAML on a base, variables of the environment, dotted overrides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from raypipe.config import C, Config, ConfigError, nearest
from raypipe.names import shortened
from raypipe.plugins.loading import is_plugin_name
from raypipe.recipe.errors import explain, field_type, mapping_value, models
from raypipe.recipe.variables import expand_variables
from raypipe.recipe.yaml_text import parse_yaml, read_yaml
from raypipe.storage.address import shown_value
from raypipe.storage.files import near_names
from raypipe.tracking.section import Tracking, as_section
from raypipe.train.settings import INSTEAD

TRACKING = "tracking"
"""A recipe's field that may be a mapping or an address."""
PUBLISHED = "published"
"""A recipe's field that may be the name of a file with the tables, relative to its own folder."""
BASE = "base"
"""A recipe's key for the file that the recipe changes, relative to its own folder."""
_PAIRS = [pair for names in INSTEAD.items() for pair in (names, names[::-1])]
"""(setting, setting that it replaces)."""
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""NUL, and halves of characters: YAML spells them, and a terminal makes them of other bytes."""


def load(cls: type[C], path: str | Path, overrides: Iterable[str] = ()) -> C:
    """Read a recipe on the `base` that it changes, apply `a.b=c` overrides, and validate.

    Raises:
        ConfigError: the file is missing or not YAML, a key or value is unknown or out of range.
    """
    file = tree = written(path)
    changes = [(text, *_parsed(text)) for text in overrides]
    for _, key, value in changes:
        if value is not None:
            tree = _without_replaced(tree, key, [other for _, other, _ in changes])
    for _, key, value in changes:
        tree = override(cls, tree, key, value)
    config, problems = _read_as(cls, expand_variables(tree, ""))
    if config is not None:
        return config
    _, own = _read_as(cls, expand_variables(file, "")) if changes else (None, problems)
    lines = [_blamed(line, [key for _, key, _ in changes]) for line in problems if line not in own]
    if of_file := [line for line in problems if line in own]:
        lines.insert(0, f"{path}: " + "\n".join(of_file))
    raise ConfigError("\n".join(lines))


def _parsed(text: str) -> tuple[str, Any]:
    """Key and value of an override."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"override {shown_value(text)}: expected key=value, such as stages.distil.lr=2e-5"
        )
    try:
        return key.strip(), parse_yaml(value)
    except yaml.YAMLError:
        raise ConfigError(
            f"override {shown_value(text)}: the value is not valid YAML; put it in quotes"
        ) from None
    except ConfigError as error:
        raise ConfigError(f"override {shown_value(text)}: {error}") from None


def _blamed(line: str, keys: Sequence[str]) -> str:
    """An error that the file alone does not have, with the overrides that it comes from.

    Their values are not shown: only where one is wrong, and so is shown masked, is it known what in
    it is secret.
    """
    if any(line.startswith((f"{key}:", f"{key}.")) for key in keys):
        return f"override {line}"
    return f"override {', '.join(map(shortened, keys))}: {line}"


def _without_replaced(tree: Any, key: str, kept: Iterable[str]) -> Any:
    """The tree without the setting that a dotted key is set instead of, unless it is kept.

    So `steps=10` on the command line is an answer to the `epochs: 3` of a file.
    """
    head, _, rest = key.partition(".")
    if not isinstance(tree, Mapping) or (rest and head not in tree):
        return tree
    if rest:
        below = [other[len(head) + 1 :] for other in kept if other.startswith(f"{head}.")]
        return {**tree, head: _without_replaced(tree[head], rest, below)}
    replaced = [pair for pair in _PAIRS if pair[0] == head and pair[1] not in kept]
    return {name: v for name, v in tree.items() if (head, name) not in replaced}


def written(path: str | Path) -> dict[str, Any]:
    """The fields that a recipe and its bases set, before defaults and variables are filled in.

    Raises:
        ConfigError: a file is missing or not YAML, or a recipe is its own base.
    """
    return _read(Path(path), ())


def _read(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """The tree of a recipe merged into the tree of its base.

    Args:
        below: the recipes that have this one as their base, the first one that was read first.
    """
    if not path.is_file():
        of = f" (the base of {below[-1]})" if below else ""
        raise ConfigError(f"no recipe at {path}{of}{near_names(path, '*.y*ml*')}")
    if path.resolve() in [recipe.resolve() for recipe in below]:
        way = ", ".join(map(str, below))
        raise ConfigError(f"{path}: is its own base, by way of {way}; remove `{BASE}` from one")
    tree = read_yaml(path) or {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of fields, found {type(tree).__name__}")
    if isinstance(tree.get(PUBLISHED), str):
        tree[PUBLISHED] = _tables(path, tree[PUBLISHED])
    if (base := tree.pop(BASE, None)) is None:
        return tree
    named = Path(expand_variables(str(base), f"{path}: {BASE}")).expanduser()
    return merged(_read(path.parent / named, (*below, path)), tree)


def _tables(path: Path, named: str) -> list[Any]:
    """The printed tables of the file that a recipe names, relative to its own folder."""
    where = f"{path}: {PUBLISHED}"
    file = path.parent / Path(expand_variables(named, where)).expanduser()
    if not file.is_file():
        raise ConfigError(f"{where}: no file at {file}{near_names(file)}")
    tables = read_yaml(file)
    if not isinstance(tables, list):
        raise ConfigError(f"{where}: expected a list of tables in {file}")
    return tables


def merged(tree: Mapping[str, Any], changes: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """A copy of `tree` in which every field that `changes` names has the value given there.

    Mappings are merged field by field. A mapping replaces the old one whole if it has another
    `type`, if it is empty, or if it is a sweep's space: its keys belong together.

    Args:
        where: the dotted path of `tree` in the recipe.
    """
    result = dict(tree)
    for key, value in changes.items():
        if value is not None and not isinstance(value, Mapping):
            result = _without_replaced(result, key, changes)
        old, path = result.get(key), f"{where}.{key}".lstrip(".")
        if path == TRACKING and value is not None:  # an address changes nothing but the address
            old, value = as_section(old), as_section(value)
        result[key] = value
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            same_type = value.get("type", old.get("type")) == old.get("type")
            if value and same_type and path != "sweep.space":
                result[key] = merged(old, value, path)
    return result


def validate(cls: type[C], tree: Mapping[str, Any], where: str) -> C:
    """`cls` from a plain tree.

    Args:
        where: what the tree is, such as the file's name; errors begin with this.

    Raises:
        ConfigError: names every wrong field by its dotted path.
    """
    config, problems = _read_as(cls, tree)
    if config is None:
        raise ConfigError(f"{where}: " + "\n".join(problems))
    return config


def _read_as(cls: type[C], tree: Mapping[str, Any]) -> tuple[C | None, list[str]]:
    """`cls` from a plain tree; or None, and what is wrong, a sentence for each field."""
    if unreadable := list(_broken(tree, "")):
        return None, unreadable
    try:
        return cls.model_validate(tree), []
    except ValidationError as error:
        return None, list(dict.fromkeys(explain(cls, dict(item)) for item in error.errors()))


def _broken(tree: Any, path: str) -> Iterator[str]:
    """A sentence for each text, at any depth, that no file system and no database holds."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _broken(key, f"{path}.{key}".lstrip("."))
            yield from _broken(value, f"{path}.{key}".lstrip("."))
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from _broken(item, path)
    elif isinstance(tree, str) and (half := _NO_TEXT.search(tree)) is not None:
        yield (
            f"{'.'.join(map(shortened, path.split('.')))}: expected text of whole characters, "
            f"found U+{ord(half[0]):04X} as character {half.start() + 1} of {shortened(tree)!r}; "
            "leave it out"
        )


def override(cls: type[Config], tree: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of `tree` with the dotted `key` set. A changed `type` drops the old choice's fields.

    Raises:
        ConfigError: a part of the key is neither a field nor an existing name of a mapping.
    """
    if key == TRACKING and isinstance(value, str):
        key = f"{TRACKING}.uri"
    head, *rest = key.split(".")
    return _override(cls, tree, [head, *rest], value, key)


def _override(kind: Any, tree: Any, parts: list[str], value: Any, key: str) -> dict[str, Any]:
    """`override` of a part of the tree.

    Args:
        kind: the annotation of this part.
        parts: what of the key stands below this part.
        key: the whole key, for errors.
    """
    result = dict(tree) if isinstance(tree, Mapping) else {}
    if is_plugin_name(tree):  # an objective's bare name
        result = {"type": tree}
    if isinstance(tree, str) and Tracking in models(kind):
        result = as_section(tree)
    head, *rest = parts
    item = mapping_value(kind)
    if item is not None and not models(item):  # free keys, which may hold dots: sweep.space
        return {**result, ".".join(parts): value}
    if item is not None and head not in result and (rest or not isinstance(value, Mapping)):
        raise ConfigError(f"{key}: there is no {head!r} here{nearest(head, result)}")
    if rest:
        child = item if item is not None else field_type(kind, head)
        inner = result[head] if head in result else _field_default(kind, head)
        result[head] = _override(child, inner, rest, value, key)
    elif head == "type" and result.get("type") != value:
        result = {"type": value}
    else:
        result[head] = value
    return result


def _field_default(kind: Any, name: str) -> Any:
    """The default of a field that a recipe leaves out, so that an override can change a part of
    it."""
    for model in models(kind):
        if name in model.model_fields:
            default = model.model_fields[name].default
            return default.model_dump(mode="json") if isinstance(default, Config) else None
    return None
