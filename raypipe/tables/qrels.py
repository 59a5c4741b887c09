"""Reading judgements: TREC qrels, and the TSV files of BEIR."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa

from raypipe.config import ConfigError
from raypipe.names import quoted
from raypipe.records import QRELS
from raypipe.tables.fields import SeenIds, grade
from raypipe.tables.text_columns import read_blocks

COLUMNS = ("query_id", "iteration", "doc_id", "relevance")
BEIR_COLUMNS = ("query-id", "corpus-id", "score")
"""The header, and so the columns, of a file of BEIR."""


def read_qrels(path: str | Path) -> tuple[pa.Table, dict[str, int]]:
    """Read judgements, plain or gzipped.

    A file whose first line is `query-id corpus-id score` has those columns; any other has the four
    of TREC, `query_id iteration doc_id relevance`. Any white space parts the columns.

    Returns:
        A QRELS table, queries in order of first appearance, and the counters `lines` and
        `duplicates`: of a document judged twice for a query the highest relevance stays.

    Raises:
        ConfigError: no such file, a malformed line (with its number), or no line at all.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "no file there"
        raise ConfigError(f"qrels {path}: {what}; name a file with judgements")
    try:
        return _read(file)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _read(path: Path) -> tuple[pa.Table, dict[str, int]]:
    judged: dict[str, dict[str, int]] = {}
    counts = Counter({"lines": 0, "duplicates": 0})
    seen, columns = SeenIds(counts), ()
    for block in read_blocks(path):
        if not columns:
            columns = _columns_of(block.data)
        for number, fields, line in block.rows(columns):
            if number == 1 and columns == BEIR_COLUMNS:
                continue
            counts["lines"] += 1
            query_id, doc_id, value = fields[0].decode(), fields[-2].decode(), fields[-1].decode()
            try:
                relevance = grade(value)
            except ValueError as error:
                raise block.wrong(number, str(error), quoted(value, 30), line) from None
            docs = judged.setdefault(query_id, {})
            if doc_id in docs:
                counts["duplicates"] += 1
                relevance = max(relevance, docs[doc_id])
            else:
                seen.look(query_id, block.place_of)
                seen.look(doc_id, block.place_of)
            docs[doc_id] = relevance
    if not judged:
        raise ConfigError(f"qrels {path}: expected judgements, found none; name another file")
    rows = [(query, doc, value) for query, docs in judged.items() for doc, value in docs.items()]
    columns_of_rows = [list(column) for column in zip(*rows, strict=True)]
    return pa.table(columns_of_rows, schema=QRELS), dict(counts)


def _columns_of(data: bytes) -> tuple[str, ...]:
    first = next((line.split() for line in data.split(b"\n") if line.strip()), [])
    return BEIR_COLUMNS if first == [name.encode() for name in BEIR_COLUMNS] else COLUMNS
