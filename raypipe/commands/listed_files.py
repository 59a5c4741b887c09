"""Which queries and documents the files of a first stage or a teacher speak of, by their beginning.

Files of these kinds may have a billion lines: the first `MOST` bytes tell in seconds whether their
ids are those of the data set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from raypipe.candidates.rankgpt import read_lists
from raypipe.config import ConfigError
from raypipe.tables.text_columns import BLOCK, Columns, blocks, count_columns, read_blocks
from raypipe.tables.trec_run import COLUMNS
from raypipe.teachers.published.pair_scores import DUO
from raypipe.teachers.published.scores import ENSEMBLE, MONO, PLAIN

MOST = 32 << 20
"""Bytes that are read of a file, of about a million lines."""
LISTS = 20_000
"""Lists that are read of a file of JSON lines."""

Ids = tuple[Sequence[str], Sequence[str]]
"""Ids of queries, and ids of documents."""


@dataclass
class ListedIds:
    """What files name."""

    query_ids: set[str] = field(default_factory=set)
    doc_ids: set[str] = field(default_factory=set)
    complete: bool = True
    """Whether the files were read to their end."""


def listed_ids(choice: Any) -> ListedIds | None:
    """The ids in the files of a first stage or a teacher; None where it reads no such file.

    Raises:
        ConfigError: a line of what was read is malformed.
    """
    if choice.type not in _READERS:
        return None
    listed = ListedIds()
    for path in _paths(choice):
        parts = _READERS[choice.type](Path(path).expanduser())
        for query_ids, doc_ids in islice(parts, MOST // BLOCK):
            listed.query_ids.update(query_ids)
            listed.doc_ids.update(doc_ids)
        listed.complete &= next(parts, None) is None
    return listed


def _paths(choice: Any) -> Sequence[str]:
    if choice.type == "rankgpt":
        return [choice.lists]
    return [choice.path] if choice.type == "rankgpt_lists" else choice.paths


def _run(path: Path) -> Iterator[Ids]:
    types = {"query_id": pa.string(), "doc_id": pa.string()}
    try:
        for block in read_blocks(path):
            if (table := block.table(COLUMNS, types)) is not None:
                yield _distinct(table, ["query_id"]), _distinct(table, ["doc_id"])
            else:
                rows = [(row[0].decode(), row[2].decode()) for _, row, _ in block.rows(COLUMNS)]
                yield [query_id for query_id, _ in rows], [doc_id for _, doc_id in rows]
    except ValueError as error:  # a ConfigError is one too
        raise ConfigError(str(error)) from None


def _pairs(path: Path, columns: Columns) -> Iterator[Ids]:
    for block in blocks(path, columns):
        yield _distinct(block, ["query_id"]), _distinct(block, columns.docs)


def _mono(path: Path) -> Iterator[Ids]:
    return _pairs(path, PLAIN if count_columns(path) == len(PLAIN.names) else MONO)


def _rankgpt(path: Path) -> Iterator[Ids]:
    lists, share = read_lists(path), LISTS * BLOCK // MOST
    while part := list(islice(lists, share)):
        yield [query_id for _, query_id, _ in part], [d for *_, doc_ids in part for d in doc_ids]


def _distinct(table: pa.Table | pa.RecordBatch, names: Sequence[str]) -> list[str]:
    return [text for name in names for text in table[name].unique().to_pylist()]


_READERS: Mapping[str, Any] = {
    "trec_run": _run,
    "run_file": _run,
    "mono_scores": _mono,
    "duo_scores": lambda path: _pairs(path, DUO),
    "ensemble_scores": lambda path: _pairs(path, ENSEMBLE),
    "rankgpt": _rankgpt,
    "rankgpt_lists": _rankgpt,
}
"""By `type` of a source or teacher."""
