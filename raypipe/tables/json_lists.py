"""Ranked lists as JSON: RankGPT's retrieved passages, and the results of rank_llm."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raypipe.config import ConfigError
from raypipe.names import quoted
from raypipe.storage.files import open_bytes, read_bounded
from raypipe.tables.fields import SeenIds, are_plain
from raypipe.tables.json_text import json_lines, parse_json

LARGEST_ARRAY = 512 << 20
"""Bytes of a file that is one JSON list: it is read whole."""


class JsonList(NamedTuple):
    """One query's list, best first."""

    number: int
    """Of its line, or its place in a list of lists."""
    query_id: str
    doc_ids: list[str]
    scores: list[float] | None
    """In the order of the documents; None if a document has none."""


def has_lists(path: Path) -> bool:
    """Whether a file begins as JSON objects do, or as a list of them."""
    with open_bytes(path) as stream:
        head = b"".join(stream.read(4096).removeprefix(b"\xef\xbb\xbf").split())
    return head.startswith((b"{", b"[{"))


def read_json_lists(path: Path, counts: Counter[str] | None = None) -> Iterator[JsonList]:
    """Every list of a file of JSON lines, or of one JSON list.

    The query id may be `query_id` or `qid`, of the list, of its `query` or of its passages; the
    passages may be `retrieved_passages`, `hits`, `candidates` or plain ids. Without ranks they
    stand in order.

    Args:
        counts: where ids with characters that nobody sees are counted.

    Raises:
        ConfigError: a line is not JSON, has no query id or no ids of documents, or an id, a rank or
            a score that is none.
    """
    seen = SeenIds(Counter() if counts is None else counts)
    for number, line in _values(path):
        place = f"{path}, line {number}"
        try:
            found = _read_list(number, line)
        except ValueError as error:
            raise ConfigError(f"{place}: {error}; correct it") from None
        if not are_plain([found.query_id, *found.doc_ids]):
            for text in (found.query_id, *found.doc_ids):
                seen.look(text, lambda text, place=place: place)
        yield found


def _values(path: Path) -> Iterator[tuple[int, Any]]:
    with open_bytes(path) as stream:
        whole = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    if not whole:
        yield from json_lines(path)
        return
    data = read_bounded(path, "a list", LARGEST_ARRAY, "write one object per line")
    try:
        yield from enumerate(parse_json(data), start=1)
    except ValueError:  # lines that are lists
        yield from json_lines(path)


def _read_list(number: int, line: Any) -> JsonList:
    if not isinstance(line, dict):
        raise ValueError(f"expected an object, found {quoted(line, 60)}")
    passages = _value(line, "retrieved_passages", "hits", "candidates")
    if not isinstance(passages, list):
        raise ValueError(f"expected a list retrieved_passages, found {quoted(sorted(line))}")
    named = passages
    if not set(map(type, passages)) <= {dict}:
        named = [p if isinstance(p, dict) else {"docid": p} for p in passages]
    asked = line["query"] if isinstance(line.get("query"), dict) else {}
    query_id = _value({**(named[0] if named else {}), **asked, **line}, "query_id", "qid")
    doc_ids = [p.get("docid") for p in named]
    if None in doc_ids:
        doc_ids = [_value(p, "docid", "doc_id") for p in named]
    if query_id is None or None in doc_ids:
        what = "a query_id" if query_id is None else "a docid in every passage"
        raise ValueError(f"expected {what}, found {quoted(line, 60)}")
    if not {type(query_id), *map(type, doc_ids)} <= {str, int}:
        wrong = next(i for i in (query_id, *doc_ids) if type(i) not in (str, int))
        raise ValueError(f"expected text or a whole number as every id, found {quoted(wrong)}")
    texts, ranks = list(map(str, doc_ids)), [p.get("rank") for p in named]
    order = list(range(len(named)))
    if any(rank is not None for rank in ranks):
        _check_numbers(ranks, "rank")
        order.sort(key=ranks.__getitem__)
    scores = [p.get("score") for p in named]
    whole = bool(scores) and None not in scores
    if whole:
        _check_numbers(scores, "score")
    ordered = [float(scores[i]) for i in order] if whole else None
    return JsonList(number, str(query_id), [texts[i] for i in order], ordered)


def _check_numbers(values: Sequence[Any], what: str) -> None:
    """Refuse what is no finite number; to Python, true is one."""
    for value in values:
        if type(value) is not int and not (type(value) is float and math.isfinite(value)):
            raise ValueError(f"expected a number as every {what}, found {quoted(value)}")


def _value(line: Mapping[str, Any], *names: str) -> Any:
    return next((line[name] for name in names if line.get(name) is not None), None)
