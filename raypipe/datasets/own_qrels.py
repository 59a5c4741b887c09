"""Judgements in the files that people have: TREC qrels, BEIR's TSV, and tables with columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raypipe.datasets.own_rows import Header, OwnRow, kind_of, own_rows, tab_lines
from raypipe.tables.fields import grade
from raypipe.tables.qrels import read_qrels

DOC_IDS = ("doc_id", "corpus-id", "corpus_id", "docid", "docno", "pid", "document_id")
QUERY_IDS = ("query_id", "query-id", "qid", "topic", "topic_id")
GRADES = ("relevance", "score", "rel", "label", "grade", "judgment", "judgement")
"""Usual names of the three columns of a table, the first that it has."""
_COLUMNS = (("query_id", QUERY_IDS), ("doc_id", DOC_IDS), ("relevance", GRADES))


def read_judgements(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """(query_id, doc_id, relevance) of every row.

    Args:
        columns: the names of `query_id`, `doc_id` and `relevance` in a table, where they are
            others than the usual ones; a name that the table lacks is that of another file.

    Raises:
        ConfigError: a malformed line, with its number.
    """
    named = {part: columns[part] for part, _ in _COLUMNS if part in columns}
    if "relevance" not in named and kind_of(path) == "tsv" and not _names_columns(path):
        table, _ = read_qrels(path)
        lists = (table[name].to_pylist() for name in ("query_id", "doc_id", "relevance"))
        yield from zip(*lists, strict=True)
        return
    known = {*QUERY_IDS, *map(str.casefold, named.values())}
    header = Header(
        lambda fields: not known.isdisjoint(map(str.casefold, fields)),
        lambda number: None,
        "a first line that names query_id, doc_id and relevance",
    )
    for row in own_rows(path, header):
        query_id, doc_id, relevance = (_value(row, named.get(k), usual) for k, usual in _COLUMNS)
        try:
            yield str(query_id), str(doc_id), grade(str(relevance))
        except ValueError as error:
            raise row.wrong(str(error), relevance) from None


def _names_columns(path: Path) -> bool:
    """Whether the first line of a file parted by tabs names ids of queries and of documents."""
    names = {field.casefold() for field in next((fields for _, fields in tab_lines(path)), [])}
    return not names.isdisjoint(QUERY_IDS) and not names.isdisjoint(DOC_IDS)


def _value(row: OwnRow, named: str | None, usual: Sequence[str]) -> Any:
    """Of the named column if the table has it, else of a usual one."""
    name = named if named in row.values else next((n for n in usual if n in row.values), None)
    if name is None:
        raise row.wrong(f"a column {named or ' or '.join(usual[:3])}")
    if not isinstance(value := row.values[name], str | int | float):
        raise row.wrong(f"text or a number as {name}", value)
    return value
