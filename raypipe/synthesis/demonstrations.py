"""Demonstrations: passages with the query that a person wrote for them, shown to a language model.

A weak model copies what it is shown: 18 of 60 texts of SmolLM2-135M were its demonstration's query.
So none are shown by default, and a text is dropped whose words come from what was shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError, nearest
from raypipe.datasets.lines import numbered, wrong
from raypipe.storage.files import near_names
from raypipe.tables.json_text import parse_json
from raypipe.tables.plain_text import words

_FUNCTION_WORDS = {
    *("about", "above", "after", "again", "also", "been", "being", "below", "between", "both"),
    *("could", "does", "doing", "down", "during", "each", "from", "further", "have", "having"),
    *("here", "into", "itself", "just", "more", "most", "much", "must", "only", "other", "over"),
    *("same", "should", "some", "such", "than", "that", "their", "them", "then", "there", "these"),
    *("they", "this", "those", "through", "under", "until", "very", "were", "what", "when"),
    *("where", "which", "while", "whom", "will", "with", "would", "your"),
}
SHORTEST = 4
"""Letters of a word that says what a text is about."""


@dataclass(frozen=True)
class Demonstration:
    """A passage and its query."""

    passage: str
    query: str


Pool = Mapping[str, tuple[Demonstration, ...]]
"""Demonstrations by the type of their query."""


def read_demonstrations(path: Path, types: Iterable[str]) -> Pool:
    """The demonstrations of a file: JSON lines with `passage`, `query` and `type`.

    Args:
        types: the types that a query may have.

    Raises:
        ConfigError: no such file, a line that is none, or a type that there is not.
    """
    if not path.is_file():
        raise ConfigError(f"demonstrations {path}: no file there{near_names(path, '*')}")
    valid, pool = set(types), dict[str, list[Demonstration]]()
    for number, line in numbered(path):
        record = _record(path, number, line)
        if (kind := record["type"]) not in valid:
            raise ConfigError(
                f"{path}:{number}: there is no type {kind!r}{nearest(kind, sorted(valid))}"
            )
        demonstration = Demonstration(record["passage"].strip(), record["query"].strip())
        pool.setdefault(kind, []).append(demonstration)
    return {kind: tuple(found) for kind, found in pool.items()}


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    expected = 'a JSON object with text under "passage", "query" and "type"'
    try:
        record = parse_json(line)
    except ValueError as error:
        raise ConfigError(wrong(path, number, expected, line, f"correct it ({error})")) from None
    names = ("passage", "query", "type")
    if not isinstance(record, dict) or not all(
        isinstance(record.get(name), str) and record[name].strip() for name in names
    ):
        raise ConfigError(wrong(path, number, expected, line))
    return record


def content_words(text: str) -> set[str]:
    """The words that say what a text is about: four letters or more, and no function word."""
    return {w for w in words(text) if len(w) >= SHORTEST and w not in _FUNCTION_WORDS}


def leaked_share(query: str, passage: str, shown: Iterable[str]) -> float:
    """Share of a query's content words that the passage lacks and one of the texts shown has.

    0 for a query without content words.
    """
    asked = content_words(query)
    seen = {word for text in shown for word in content_words(text)}
    return len((asked & seen) - set(words(passage))) / len(asked) if asked else 0.0
