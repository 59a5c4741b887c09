"""Says what a field or a choice of a recipe means; writes the reference page and the schema."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from raypipe.config import Config, ConfigError, near, plain_letters
from raypipe.plugins.choice import FORM
from raypipe.plugins.loading import is_plugin_name, plugin_class
from raypipe.recipe.foreign_names import OWN_NAMES, elsewhere
from raypipe.recipe.schema import NAME, RecipeField, about, classes, entries, own_entries, type_of

WIDTH = 96


def explain(key: str | None, recipes: Path) -> list[str]:
    """What stands at a dotted key, or what a choice of that name is; without a key, all top keys.

    Args:
        key: such as `stages.distil.lr`, with any name of a stage, or a choice such as `infonce`.
        recipes: a folder of recipes, which examples come from.

    Raises:
        ConfigError: no field and no choice has that name.
    """
    known = entries()
    if key is None:
        tops = [entry for entry in known if "." not in entry.key]
        return [f"{entry.key:12} {entry.meaning}".rstrip() for entry in tops]
    if found := [entry for entry in known if _matches(entry.key, key)]:
        examples = _examples(recipes, found[0].key)
        return [line for group in _alike(found) for line in _told(group, examples)]
    if chosen := [cls for cls in classes() if key in (type_of(cls), cls.__name__)]:
        return [line for cls in chosen for line in _choice(cls)]
    if is_plugin_name(key):
        return list(_own(plugin_class(key, Config, "choice"), known))
    ends: dict[str, list[str]] = {}
    for entry in known:
        ends.setdefault(entry.key.rpartition(".")[2], []).append(entry.key)
    if (ours := OWN_NAMES.get(plain_letters(key))) is not None:
        return [f"{key}: here it is called {ours}", *explain(ours, recipes)]
    if key in ends and len(set(ends[key])) == 1:
        return explain(ends[key][0], recipes)
    if key in ends:
        plain = sorted(dict.fromkeys(ends[key]), key=lambda name: name.count("."))
        listed = ", ".join(plain[:8])
        raise ConfigError(f"{key}: name the whole key, such as {listed}")
    names = near(key, [*ends, *filter(None, map(type_of, classes())), *(e.key for e in known)])
    remedy = f"did you mean {names[0]!r}?" if names else "without a key all at the top are listed"
    raise ConfigError(f"{key}: no such key or choice; {remedy}")


def _matches(pattern: str, key: str) -> bool:
    """Whether a key is that of an entry, any name standing for NAME."""
    ours, theirs = pattern.split("."), key.split(".")
    return len(ours) == len(theirs) and all(
        a in (b, NAME) for a, b in zip(ours, theirs, strict=True)
    )


def _alike(found: Sequence[RecipeField]) -> list[list[RecipeField]]:
    """Entries that differ in the choice only, together."""
    groups: dict[tuple[str, ...], list[RecipeField]] = {}
    for entry in found:
        groups.setdefault((entry.kind, entry.default, entry.meaning), []).append(entry)
    return list(groups.values())


def _told(group: Sequence[RecipeField], examples: Sequence[str]) -> Iterator[str]:
    entry = group[0]
    of = ", ".join(dict.fromkeys(e.choice for e in group if e.choice))
    yield f"{entry.key}{f'  (of {of})' if of else ''}"
    yield from textwrap.wrap(
        f"takes: {entry.kind}", WIDTH, initial_indent="  ", subsequent_indent="    "
    )
    yield f"  default: {entry.default or 'none, it must be given'}"
    if entry.meaning:
        yield from textwrap.wrap(
            f"means: {entry.meaning}", WIDTH, initial_indent="  ", subsequent_indent="    "
        )
    if names := elsewhere(entry.key):
        yield f"  elsewhere called: {', '.join(names)}"
    if not entry.decides:
        yield "  changes no result: another value uses the same artifacts"
    for example in examples:
        yield f"  example: {example}"
    for cls in entry.choices:
        yield from textwrap.wrap(
            f"{type_of(cls)}: {about(cls)}", WIDTH, initial_indent="  - ", subsequent_indent="    "
        )
    if FORM in entry.kind:
        yield f"  - {FORM}: one of your own, see docs/plug-ins.md"
    if entry.choices:
        yield f"  `explain {type_of(entry.choices[0])}` lists the fields of a choice"


def _own(cls: type[Config], known: Sequence[RecipeField]) -> Iterator[str]:
    """A class of the user's, and where it may stand."""
    fits = {
        entry.key
        for entry in known
        if any(issubclass(cls, plugin.base) for plugin in entry.plugins)
    }
    yield from _choice(cls, [entry.key for entry in known if entry.key in fits][:8])


def _choice(cls: type[Config], keys: Sequence[str] | None = None) -> Iterator[str]:
    name = type_of(cls) or cls.__name__
    places = ", ".join(filter(None, classes()[cls] if keys is None else dict.fromkeys(keys)))
    yield f"{name}  (at {places})" if places else name
    yield from textwrap.wrap(about(cls), WIDTH, initial_indent="  ", subsequent_indent="  ")
    for entry in own_entries(cls):
        default = f"default {entry.default}" if entry.default else "required"
        text = f"{entry.key}: {entry.kind}; {default}. {entry.meaning}"
        yield from textwrap.wrap(text, WIDTH, initial_indent="  - ", subsequent_indent="    ")


def _examples(recipes: Path, key: str) -> list[str]:
    """How a shipped recipe sets the key, as an override."""
    for path in sorted(recipes.glob("*.yaml")):
        tree = yaml.safe_load(path.read_text("utf-8"))
        for where, value in _at(tree, key.split("."), ""):
            if not isinstance(value, dict | list):
                return [f"{where}={value}  ({path.name})"]
    return []


def _at(tree: Any, parts: Sequence[str], where: str) -> Iterator[tuple[str, Any]]:
    if not parts:
        yield where, tree
    elif isinstance(tree, dict):
        names = list(tree) if parts[0] == NAME else [parts[0]]
        for name in names:
            if name in tree:
                yield from _at(tree[name], parts[1:], f"{where}.{name}" if where else str(name))


def reference() -> str:
    """The reference page: every class of a recipe with its fields, as Markdown."""
    parts = [
        "# Reference: everything that can stand in a recipe",
        "Made by `raypipe explain --reference docs/reference.md`; do not edit. A key is dotted, as "
        "in `stages.distil.lr=2e-5` on the command line. A field with a choice takes a mapping "
        "with `type` and that choice's fields.",
    ]
    for cls, places in classes().items():
        name = type_of(cls)
        title = f"`type: {name}`" if name else f"`{places[0]}`" if places[0] else "A recipe"
        stands = ", ".join(f"`{place}`" for place in dict.fromkeys(places) if place)
        parts += [f"## {title}", f"{about(cls)}" + (f" Stands at {stands}." if stands else "")]
        rows = [
            f"| `{e.key}` | {_cell(e.kind)} | {_cell(e.default or 'required')} "
            f"| {_cell(e.meaning)} |"
            for e in own_entries(cls)
        ]
        if rows:
            head = "| field | takes | default | meaning |\n|---|---|---|---|"
            parts.append("\n".join([head, *rows]))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    """The text, which is Markdown, as a cell of a table."""
    return text.replace("|", r"\|")
