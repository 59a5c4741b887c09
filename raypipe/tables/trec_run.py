"""Reading run files: of TREC, MS MARCO (`query_id doc_id rank`), ColBERT (a score behind it), JSON.

The rank column is a run's order: published LLM re-rankings keep the scores of the first stage that
they re-ranked. Where the column tells no order, because documents have one rank (BEIR writes 0 in
every line) or the column is missing, scores decide, and then the order of the lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.names import quoted
from raypipe.tables.fields import SeenIds, real, whole
from raypipe.tables.flat import FLAT, FLOAT32_LIMIT, array, nest, settle
from raypipe.tables.json_lists import has_lists, read_json_lists
from raypipe.tables.text_columns import TextBlock, read_blocks

COLUMNS = ("query_id", "Q0", "doc_id", "rank", "score", "tag")
UNRANKED = ("query_id", "Q0", "doc_id", "score", "tag")
"""The columns of a file without ranks."""
MSMARCO = ("query_id", "doc_id", "rank")
COLBERT = (*MSMARCO, "score")
"""The columns of rankings as MS MARCO and ColBERT write them."""
_BY_NUMBER = {len(MSMARCO): MSMARCO, len(COLBERT): COLBERT}
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
_LISTS = 1024  # of JSON that are Python objects at a time
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

    Lines of three or four columns are `query_id doc_id rank [score]`; JSON lines are lists as
    rank_llm and RankGPT write them, in their order; where there are no scores, they are the
    negative ranks. Any white space parts the columns. Ranks may start from any number; documents of
    equal rank are ordered by score, the highest first, and those of equal score as their lines are.
    A file whose first line lacks the rank lacks it in every line. Memory: about 34 bytes per line
    of a wanted query.

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
    if has_lists(Path(path)):
        yield from _json_lines_of(Path(path), query, counts, tag)
        return
    for block in read_blocks(path):
        columns = columns or _columns_of(block)
        reading = (block, columns, query, tag, seen)
        lines, table = _at_once(*reading) or _line_by_line(*reading)
        counts.update(lines=lines, other_queries=lines - table.num_rows)
        yield table


def _json_lines_of(
    path: Path, query: Number, counts: Counter[str], tag: Number
) -> Iterator[pa.Table]:
    """As `read_lines`, of lists in JSON."""
    lists = read_json_lists(path, counts)
    while part := list(islice(lists, _LISTS)):
        rows: list[tuple[Any, ...]] = []
        lines = sum(len(found.doc_ids) for found in part)
        for found in part:
            if (number := query(found.query_id)) < 0:
                continue
            scores = found.scores or [-float(rank) for rank in range(1, len(found.doc_ids) + 1)]
            for rank, (doc_id, score) in enumerate(zip(found.doc_ids, scores, strict=True), 1):
                if not abs(score) < FLOAT32_LIMIT:
                    raise ValueError(
                        f"{path}, line {found.number}: expected scores within float32, found "
                        f"{score}; correct it"
                    )
                rows.append((number, doc_id, rank, score, tag("")))
        counts.update(lines=lines, other_queries=lines - len(rows))
        yield _as_lines(rows)


def _as_lines(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    values = list(zip(*rows, strict=True)) or [()] * len(LINES)
    arrays = [pa.array(v, f.type) for v, f in zip(values, LINES, strict=True)]
    return pa.table(arrays, schema=LINES)


def _columns_of(block: TextBlock) -> tuple[str, ...]:
    """By the first line: `MSMARCO`, `COLBERT`, `UNRANKED`, and `COLUMNS` otherwise.

    Raises:
        ValueError: three or four columns that are judgements or triples.
    """
    fields = next((fields for line in block.data.split(b"\n") if (fields := line.split())), [])
    if (columns := _BY_NUMBER.get(len(fields))) and fields[1] != b"Q0":
        _check_short(block, columns)
        return columns
    unranked = len(fields) == len(UNRANKED) and _is_number(fields[3]) and not _is_number(fields[4])
    return UNRANKED if unranked else COLUMNS


def _check_short(block: TextBlock, columns: Sequence[str]) -> None:
    """Refuse judgements and triples, which have three or four columns too.

    A run's first query has ranks from 0 or 1 upwards, each once; the second column of TREC's
    judgements is 0 in every line.
    """
    rows = []
    for number, parts, line in block.rows(columns):
        rows.append((number, parts, line))
        if len(rows) >= 1000:
            break
    number, _, line = rows[0]
    if len(columns) == 4 and all(parts[1] == b"0" for _, parts, _ in rows):
        found = "what looks like judgements (query_id 0 doc_id relevance): name it as qrels"
        raise block.wrong(number, f"a run, {' '.join(COLUMNS)}", found, line)
    ranks = [parts[2] for _, parts, _ in rows if parts[0] == rows[0][1][0]]
    if len(columns) == 3 and not all(rank.isdigit() for rank in ranks):
        expected = "query_id doc_id rank (scores without ranks are read by teacher mono_scores)"
        raise block.wrong(number, expected, quoted(ranks[0].decode(), 30), line)
    if len(columns) == 3 and (min(map(int, ranks)) > 1 or len({*ranks}) < len(ranks)):
        found = "no ranks from 1 on, each once: triples are named as groups.triples.path"
        raise block.wrong(number, f"a run, {' '.join(columns)}", found, line)


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
    ranked = "rank" in columns
    rank = table["rank"].to_numpy() if ranked else np.zeros(len(numbers), np.int64)
    score = table["score"].to_numpy() if "score" in columns else -np.asarray(rank, np.float64)
    if not (np.abs(score) < FLOAT32_LIMIT).all():  # NaN compares false
        return None
    tags = numbered(table["tag"], tag) if "tag" in columns else np.full(len(numbers), tag(""))
    values = [numbers, table["doc_id"], rank, score, tags.astype(np.int32)]
    return lines, pa.table(values, schema=LINES)


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
        fields = _six(fields, columns)
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
    return lines, _as_lines(rows)


def _six(fields: list[bytes], columns: Sequence[str]) -> list[bytes]:
    """The fields of a line as those of COLUMNS."""
    if columns == UNRANKED:
        return [*fields[:3], b"0", *fields[3:]]
    if columns in (MSMARCO, COLBERT):
        query_id, doc_id, rank, *score = fields
        return [query_id, b"Q0", doc_id, rank, *(score or [b"-" + rank]), b""]
    return fields
