"""Which queries and documents a first stage's, a teacher's or triples' files name at their start.

Files of these kinds may have a billion lines: the first `MOST` bytes tell in seconds whether their
ids are those of the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from raypipe.candidates.rankgpt import read_lists
from raypipe.config import ConfigError
from raypipe.groups.triples import SCORES, TRIPLES
from raypipe.tables.text_columns import BLOCK, Columns, blocks, count_columns, read_blocks
from raypipe.tables.trec_run import COLUMNS
from raypipe.teachers.published.pair_scores import DUO
from raypipe.teachers.published.scores import ENSEMBLE, MONO, PLAIN

MOST = 32 << 20
"""Bytes that are read of a file, of about a million lines."""
LISTS = 20_000
"""Lists that are read of a file of JSON lines."""

Ids = tuple[Sequence[str], Sequence[str], int]
"""Ids of queries, ids of documents, and the number of lines that they stand in."""


@dataclass
class ListedIds:
    """What files name."""

    query_ids: set[str] = field(default_factory=set)
    doc_ids: set[str] = field(default_factory=set)
    lines: int = 0
    complete: bool = True
    """Whether the files were read to their end."""


def listed_ids(choice: Any) -> ListedIds | None:
    """The ids in the files of a first stage, a teacher or triples; None where there are none.

    Raises:
        ConfigError: a line of what was read is malformed.
    """
    if choice.type not in _READERS or not _paths(choice):
        return None
    listed = ListedIds()
    for path in _paths(choice):
        parts = _READERS[choice.type](Path(path).expanduser())
        for query_ids, doc_ids, lines in islice(parts, MOST // BLOCK):
            listed.query_ids.update(query_ids)
            listed.doc_ids.update(doc_ids)
            listed.lines += lines
        listed.complete &= next(parts, None) is None
    return listed


def _paths(choice: Any) -> Sequence[str]:
    if choice.type == "rankgpt":
        return [choice.lists]
    if choice.type == "triples":
        return [] if choice.path is None else [choice.path]
    return [choice.path] if choice.type == "rankgpt_lists" else choice.paths


def _run(path: Path) -> Iterator[Ids]:
    return _spaced(path, lambda first: COLUMNS, ["doc_id"])


def _triples(path: Path) -> Iterator[Ids]:
    with_scores = (*SCORES, *TRIPLES.names)
    return _spaced(
        path, lambda first: with_scores if first == 5 else tuple(TRIPLES.names), TRIPLES.names[1:]
    )


def _spaced(
    path: Path, columns_of: Callable[[int], Sequence[str]], docs: Sequence[str]
) -> Iterator[Ids]:
    """Of columns parted by any white space.

    Args:
        columns_of: given the number of fields in the first line, the columns' names.
        docs: the columns of document ids.
    """
    columns: Sequence[str] = ()
    try:
        for block in read_blocks(path):
            columns = columns or columns_of(len(block.data.split(b"\n", 1)[0].split()))
            table = block.table(columns, dict.fromkeys(["query_id", *docs], pa.string()))
            if table is None:
                rows = [row for _, row, _ in block.rows(columns)]
                by_name = dict(zip(columns, zip(*rows, strict=True), strict=False))
                names = ["query_id", *docs]
                table = pa.table({n: [f.decode() for f in by_name.get(n, ())] for n in names})
            yield _distinct(table, ["query_id"]), _distinct(table, docs), table.num_rows
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _pairs(path: Path, columns: Columns) -> Iterator[Ids]:
    for block in blocks(path, columns):
        yield _distinct(block, ["query_id"]), _distinct(block, columns.docs), block.num_rows


def _mono(path: Path) -> Iterator[Ids]:
    return _pairs(path, PLAIN if count_columns(path) == len(PLAIN.names) else MONO)


def _rankgpt(path: Path) -> Iterator[Ids]:
    lists, share = read_lists(path), LISTS * BLOCK // MOST
    while part := list(islice(lists, share)):
        doc_ids = [doc_id for *_, listed in part for doc_id in listed]
        yield [query_id for _, query_id, _ in part], doc_ids, len(part)


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
    "triples": _triples,
}
"""By `type` of a source, a teacher or triples."""
