"""JSON that others wrote: objects without repeated keys, one value per line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError
from raypipe.names import quoted
from raypipe.storage.files import numbered_lines, open_bytes


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {quoted(twice)} twice in one object")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats)
_LENIENT = json.JSONDecoder()


def parse_json(text: str | bytes, repeats: bool = False) -> Any:
    """The value of a JSON text; a byte order mark is skipped.

    Args:
        repeats: whether the last of equal keys of an object counts, which is refused otherwise.

    Raises:
        ValueError: it is not UTF-8 or not JSON, has a key twice, or is nested too deeply.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        return (_LENIENT if repeats else _DECODER).decode(text)
    except RecursionError:  # at about a thousand levels
        raise ValueError("too many levels of lists and objects") from None
    except ValueError as error:
        if str(error).startswith("Exceeds the limit"):  # of int(), which names a remedy of Python's
            raise ValueError("a number of thousands of digits") from None
        raise


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of every line that is not empty.

    Raises:
        ConfigError: a line is not JSON, or longer than any that is read.
    """
    with open_bytes(path) as stream:
        for number, line in numbered_lines(path, stream):
            if not line.strip():
                continue
            try:
                yield number, parse_json(line)
            except ValueError as error:
                raise ConfigError(
                    f"{path}, line {number}: expected JSON, found {error}; correct it"
                ) from None
