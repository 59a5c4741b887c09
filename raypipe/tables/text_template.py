"""A text made of several columns, such as `{title} | {brand} | {body}`.

The rule is that of Python's `template.format(**row)`, with empty text for a column that is empty
or null, and the result stripped: what serves a model can build the same text in one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from raypipe.config import ConfigError, nearest
from raypipe.names import quoted

_COLUMN = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class TextTemplate:
    """Columns in braces, and what stands between them; a name without braces is one column.

    Raises:
        ConfigError: a brace without its other, or no name between two.
    """

    template: str

    def __post_init__(self) -> None:
        rest = _COLUMN.sub("", self.template)
        if not self.template.strip() or "{" in rest or "}" in rest or "" in self.columns:
            raise ConfigError(
                f"text {quoted(self.template)}: expected columns in braces, as in "
                "'{title} | {brand}', each brace with its other and a name between them"
            )

    @cached_property
    def full(self) -> str:
        """The template with braces in any case."""
        return self.template if _COLUMN.search(self.template) else f"{{{self.template.strip()}}}"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns' names, each once, in order."""
        return tuple(dict.fromkeys(_COLUMN.findall(self.full)))

    def fill(self, row: Mapping[str, Any]) -> str:
        """The text of one row.

        Raises:
            ValueError: a column's value is no text, number or list of these.
        """
        return _COLUMN.sub(lambda match: cell_text(row.get(match[1])), self.full).strip()

    def check(self, names: Iterable[str], where: str) -> None:
        """Refuse a table that lacks a column.

        Args:
            names: of the table's columns.
            where: the beginning of the error.
        """
        there = list(names)
        for column in self.columns:
            if column not in there:
                raise ConfigError(f"{where}: there is no column {column!r}{nearest(column, there)}")


def cell_text(value: Any) -> str:
    """A value of a table as text: "" for null, lists joined by spaces.

    Raises:
        ValueError: an object of named values.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list | tuple):
        return " ".join(filter(None, map(cell_text, value)))
    if isinstance(value, Mapping | bytes):
        raise ValueError(f"expected text or a number, found {quoted(value, 60)}")
    return str(value)
