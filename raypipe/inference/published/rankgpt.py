"""RankGPT's two files: lists as the model saw them, and its answers.

{"query_id": "7", "retrieved_passages": [{"docid": "d4", "rank": 1}, ...]}      one per line
["[5] > [18] > [2] ...", ...]                                           the i-th of line i
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError
from raypipe.files import open_bytes


def read_lists(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(line number, query id, documents by rank) of every line.

    The query id may be `qid`, or stand in the passages; the passages may be `hits` or plain ids.
    Without ranks they stand in order.

    Raises:
        ConfigError: a line is something else.
    """
    for number, line in _json_lines(path):
        try:
            yield number, *_read_list(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from None


def _read_list(line: Any) -> tuple[str, list[str]]:
    if not isinstance(line, dict):
        raise ValueError(f"expected an object, found {str(line)[:60]!r}")
    passages = _first(line, "retrieved_passages", "hits")
    if not isinstance(passages, list):
        raise ValueError(f"expected a list retrieved_passages, found {sorted(line)}")
    named = [p if isinstance(p, dict) else {"docid": p} for p in passages]
    query_id = _first({**(named[0] if named else {}), **line}, "query_id", "qid")
    doc_ids = [_first(p, "docid", "doc_id") for p in named]
    if query_id is None or None in doc_ids:
        what = "a query_id" if query_id is None else "a docid in every passage"
        raise ValueError(f"expected {what}, found {str(line)[:60]!r}")
    ranks = [p.get("rank") for p in named]
    order = list(range(len(named)))
    if any(rank is not None for rank in ranks):
        if not all(isinstance(rank, int | float) for rank in ranks):
            raise ValueError(f"expected a number as every rank, found {ranks}")
        order.sort(key=lambda i: ranks[i])
    return str(query_id), [str(doc_ids[i]) for i in order]


def read_answers(path: Path) -> list[str]:
    """A JSON list of strings, or one JSON string per line.

    Raises:
        ConfigError: the file is neither.
    """
    with open_bytes(path) as stream:
        data = stream.read()
    try:
        answers = json.loads(data)
    except ValueError:
        answers = [line for _, line in _json_lines(path)]
    answers = [answers] if isinstance(answers, str) else answers
    wrong = [a for a in answers if not isinstance(a, str)] if isinstance(answers, list) else answers
    if wrong or not isinstance(answers, list):
        raise ConfigError(
            f"{path}: expected a JSON list of strings, or a JSON string per line, found "
            f"{str(wrong)[:60]!r}"
        )
    return answers


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with open_bytes(path) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except ValueError as error:  # bytes that are not UTF-8 are one too
                raise ConfigError(f"{path}, line {number}: expected JSON, found {error}") from None


def _first(line: Mapping[str, Any], *names: str) -> Any:
    return next((line[name] for name in names if line.get(name) is not None), None)
