"""Reading TREC run files.

The rank column is a run's order: published LLM re-rankings keep the scores of the first stage that
they re-ranked. Where the column tells no order, because documents have one rank (BEIR writes 0 in
every line) or the column is missing, scores decide, and then the order of the lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.names import quoted
from raypipe.tables.fields import SeenIds, real, whole
from raypipe.tables.flat import FLAT, FLOAT32_LIMIT, array, nest, settle
from raypipe.tables.text_columns import TextBlock, read_blocks

COLUMNS = ("query_id", "Q0", "doc_id", "rank", "score", "tag")
UNRANKED = ("query_id", "Q0", "doc_id", "score", "tag")
"""The columns of a file without ranks."""
RANKED = FLAT.set(FLAT.get_field_index("score"), pa.field("score", pa.float64()))
"""FLAT with scores as the file has them: .99999998 and .99999999 are one float32."""
LINES = RANKED.append(pa.field("tag", pa.int32()))
"""The wanted lines of a run file; `order` is the rank, `tag` the reader's number of the tag."""

_TYPES = {
    "query_id": pa.string(),
    "doc_id": pa.large_string(),
    "rank": pa.int64(),
    "score": pa.float64(),
    "tag": pa.string(),
}
_IDS = ("query_id", "doc_id")
_SETTLE = 1 << 20  # rows held before they are sorted and cut, at least

Number = Callable[[str], int]
"""Given an id, its number from 0; a negative number means that the line is not wanted."""


def read_trec_run(
    path: str | Path,
    query_ids: Collection[str] | None = None,
    depth: int | None = None,
    source: str | None = None,
) -> tuple[pa.Table, dict[str, int]]:
    """Read a TREC run file, plain or gzipped, with lines `query_id Q0 doc_id rank score tag`.

    Any white space parts the columns. Ranks may start from any number; documents of equal rank are
    ordered by score, the highest first, and those of equal score as their lines are. A file whose
    first line lacks the rank lacks it in every line. Memory: about 34 bytes per line of a wanted
    query.

    Args:
        query_ids: the queries to keep; None keeps all.
        depth: the number of documents to keep per query, at least 1; None keeps all.
        source: the value of `sources`; None takes the tag column.

    Returns:
        A CANDIDATES table, one row per query in order of first appearance, ranks renumbered 1..n,
        and counters: `lines` = `kept` + `other_queries` + `duplicates` + `beyond_depth`. Of a
        document listed twice for a query the best rank stays.

    Raises:
        ValueError: a malformed line (with its number), a damaged gzip file, text that is not UTF-8.
    """
    if depth is not None and depth < 1:
        raise ValueError(f"expected a depth of at least 1, found {depth}; raise it, or use None")
    wanted = None if query_ids is None else set(query_ids)
    queries: dict[str, int] = {}
    tags: dict[str, int] = {}
    counts = Counter({"lines": 0, "other_queries": 0, "duplicates": 0, "beyond_depth": 0})

    def query_number(query_id: str) -> int:
        if wanted is not None and query_id not in wanted:
            return -1
        return queries.setdefault(query_id, len(queries))

    held, waiting = LINES.empty_table(), 0
    fresh: list[pa.Table] = []

    def settled() -> pa.Table:
        lines = pa.concat_tables([held, *fresh])
        table, duplicates, beyond = settle(lines, depth, as_listed=True)
        counts.update(duplicates=duplicates, beyond_depth=beyond)
        return table

    for lines in read_lines(path, query_number, counts, lambda t: tags.setdefault(t, len(tags))):
        fresh.append(lines)
        waiting += lines.num_rows
        if waiting > _SETTLE + held.num_rows:  # each time it has doubled
            held, waiting = settled(), 0
            fresh = []
    flat = settled()
    names = pa.array(tags, pa.string()) if source is None else pa.array([source] * len(tags))
    sources = names.cast(pa.string()).take(array(flat, "tag"))
    return nest(flat, list(queries), sources), {**counts, "kept": flat.num_rows}


def read_lines(
    path: str | Path, query: Number, counts: Counter[str], tag: Number = lambda tag: 0
) -> Iterator[pa.Table]:
    """The lines of the wanted queries block by block, as LINES.

    Adds the lines read to `lines` in `counts`, those of other queries to `other_queries` too.

    Raises:
        ValueError: as `read_trec_run`.
    """
    seen = SeenIds(counts)
    columns: tuple[str, ...] = ()
    for block in read_blocks(path):
        columns = columns or _columns_of(block)
        reading = (block, columns, query, tag, seen)
        lines, table = _at_once(*reading) or _line_by_line(*reading)
        counts.update(lines=lines, other_queries=lines - table.num_rows)
        yield table


def _columns_of(block: TextBlock) -> tuple[str, ...]:
    """`UNRANKED` if the first line is one of those, and `COLUMNS` otherwise."""
    fields = next((fields for line in block.data.split(b"\n") if (fields := line.split())), [])
    unranked = len(fields) == len(UNRANKED) and _is_number(fields[3]) and not _is_number(fields[4])
    return UNRANKED if unranked else COLUMNS


def _is_number(field: bytes) -> bool:
    try:
        real(field.decode(errors="replace"))
    except ValueError:
        return False
    return True


def _at_once(
    block: TextBlock, columns: Sequence[str], query: Number, tag: Number, seen: SeenIds
) -> tuple[int, pa.Table] | None:
    """The number of lines, and the wanted ones as LINES; None if only `_line_by_line` can tell."""
    table = block.table(columns, {name: t for name, t in _TYPES.items() if name in columns})
    if table is None:
        return None
    for name in _IDS:
        seen.look_at(table[name], block.place_of)
    numbers = numbered(table["query_id"], query)
    lines, wanted = len(numbers), numbers >= 0
    if not wanted.all():
        table, numbers = table.filter(pa.array(wanted)), numbers[wanted]
    score = table["score"].to_numpy()
    if not (np.abs(score) < FLOAT32_LIMIT).all():  # NaN compares false
        return None
    rank = table["rank"] if "rank" in columns else np.zeros(len(score), np.int64)
    values = [numbers, table["doc_id"], rank, score]
    return lines, pa.table([*values, numbered(table["tag"], tag)], schema=LINES)


def ranks_tie(path: str | Path) -> bool:
    """Whether two lines of a query have one rank, as far as the file's first `BLOCK` bytes tell.

    Such lists stood by doc_id before scores decided: artifacts of these files have other digests.
    """
    block = next(read_blocks(path), None)
    types = {"query_id": pa.string(), "rank": pa.string()}
    if block is None or (table := block.table(COLUMNS, types)) is None:
        return False
    query, rank = (
        table[name].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        for name in types
    )
    return len(np.unique(query << 32 | rank)) < len(query)


def numbered(column: pa.ChunkedArray, number: Number) -> np.ndarray[Any, Any]:
    """`number(text)` of every row, int32; called once per run of equal rows."""
    runs = pc.run_end_encode(column.combine_chunks())
    heads = np.fromiter(map(number, runs.values.to_pylist()), np.int32, len(runs.values))
    return np.repeat(heads, np.diff(runs.run_ends.to_numpy(), prepend=0))


def _line_by_line(
    block: TextBlock, columns: Sequence[str], query: Number, tag: Number, seen: SeenIds
) -> tuple[int, pa.Table]:
    """As `_at_once`; the error of a wrong line names its number."""
    rows: list[tuple[Any, ...]] = []
    lines = 0
    for number, fields, line in block.rows(columns):
        lines += 1
        if columns == UNRANKED:
            fields = [*fields[:3], b"0", *fields[3:]]
        query_id, doc_id = fields[0].decode(), fields[2].decode()
        for text in (query_id, doc_id):
            seen.look(text, block.place_of)
        if (query_number := query(query_id)) < 0:
            continue
        numbers = fields[3].decode(), fields[4].decode()
        found = " and ".join(quoted(text, 30) for text in numbers)
        try:
            rank, score = whole(numbers[0]), real(numbers[1])
        except ValueError:
            expected = "an integer rank and a score in columns 4 and 5"
            raise block.wrong(number, expected, found, line) from None
        if not (abs(score) < FLOAT32_LIMIT and -(1 << 63) <= rank < 1 << 63):
            raise block.wrong(number, "a finite rank and score", found, line)
        rows.append((query_number, doc_id, rank, score, tag(fields[5].decode())))
    values = list(zip(*rows, strict=True)) or [()] * len(LINES)
    arrays = [pa.array(v, f.type) for v, f in zip(values, LINES, strict=True)]
    return lines, pa.table(arrays, schema=LINES)
