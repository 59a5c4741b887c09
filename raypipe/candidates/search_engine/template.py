"""The template of a request: JSON whose texts hold `{query}`, and may hold `{depth}`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLACE = re.compile(r"\{(query|depth)\}")


def check_template(template: Mapping[str, Any], depth_field: str) -> None:
    """Refuse a template that asks nothing about a query, or how many documents.

    Raises:
        ValueError: names what is missing or too much.
    """
    if not any("{query}" in text for text in _texts(template)):
        raise ValueError(
            'request: expected "{query}" in one of its texts, where a query\'s text goes, found '
            "none; write it there"
        )
    if depth_field in template:
        raise ValueError(
            f"request: {depth_field} is set by `depth`; leave it out, and name `depth` beside "
            "`request`"
        )


def filled(template: Any, query: str, depth: int) -> Any:
    """The template with a query's text and the depth in their places.

    A text that is `{depth}` and nothing else becomes a number. The query stands inside JSON's
    texts, so no character of it can end one; what an engine's own query language makes of it, the
    template decides.
    """
    if isinstance(template, Mapping):
        return {name: filled(value, query, depth) for name, value in template.items()}
    if isinstance(template, list | tuple):
        return [filled(value, query, depth) for value in template]
    if not isinstance(template, str):
        return template
    if template == "{depth}":
        return depth
    values = {"query": query, "depth": str(depth)}
    return _PLACE.sub(lambda place: values[place[1]], template)


def _texts(value: Any) -> Iterator[str]:
    """Every text among the values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
