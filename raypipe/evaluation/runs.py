"""Ranked lists: TREC run files, re-ranking, and the perfect re-ranking.

In a run the rank column is the order. Scores read from a file are carried along and never sort:
published LLM re-rankings keep the scores of the first stage they re-ranked.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.records import CANDIDATES, RUN

Ranking = dict[str, list[str]]
"""query_id to doc_ids, best first."""

_FIELDS = "query_id Q0 doc_id rank score tag"
_BATCH = 1 << 18  # lines held as Python objects (about 60 MB) before they become Arrow columns
_FLOAT32_LIMIT = 2.0**128 - 2.0**103  # from here on a number rounds to infinity in float32
_FLAT = pa.schema(
    [
        ("query", pa.int32()),
        ("doc_id", pa.large_string()),
        ("rank", pa.int64()),
        ("score", pa.float32()),
        ("tag", pa.int32()),
    ]
)


def ranking(run: pa.Table) -> Ranking:
    """The order of a RUN or CANDIDATES table alone.

    Raises:
        ValueError: a query has two rows, or a document stands twice in one list.
    """
    out: Ranking = {}
    ids = zip(run["query_id"].to_pylist(), run["doc_ids"].to_pylist(), strict=True)
    for query_id, doc_ids in ids:
        if query_id in out:
            raise ValueError(f"query {query_id!r} has two rows; expected one row per query")
        if len(set(doc_ids)) < len(doc_ids):
            twice = next(d for i, d in enumerate(doc_ids) if d in doc_ids[:i])
            raise ValueError(f"query {query_id!r} ranks document {twice!r} twice; keep one of them")
        out[query_id] = doc_ids
    return out


def read_trec_run(
    path: str | Path,
    query_ids: Collection[str] | None = None,
    depth: int | None = None,
    source: str | None = None,
) -> tuple[pa.Table, dict[str, int]]:
    """Stream a TREC run file, plain or gzipped; the columns may be parted by any white space.

    Each line is `query_id Q0 doc_id rank score tag`.
    The rank column is the order, whatever number it starts from; equal ranks are ordered by doc_id.
    Only the wanted queries are kept in memory, about 30 bytes per kept line.

    Args:
        query_ids: the queries to keep; None keeps all.
        depth: the number of documents to keep per query, at least 1; None keeps all.
        source: written to `sources`; None takes the tag column.

    Returns:
        A CANDIDATES table, one row per query in order of first appearance, ranks renumbered 1..n,
        and counters: `lines` = `kept` + `other_queries` + `duplicates` + `beyond_depth`. Of a
        document listed twice for a query the best rank stays.

    Raises:
        ValueError: a malformed line (with its number), a damaged gzip file, text that is not UTF-8.
    """
    if depth is not None and depth < 1:
        raise ValueError(f"expected a depth of at least 1, found {depth}")
    wanted = None if query_ids is None else {q.encode() for q in query_ids}
    reader = _Reader(str(path), wanted, depth)
    with _open_bytes(path) as lines:
        reader.read(lines)
    flat = reader.settle()
    tags = [source] * len(reader.tags) if source is not None else [t.decode() for t in reader.tags]
    counts = {**reader.counts, "kept": flat.num_rows}
    return _nest(flat, [q.decode() for q in reader.queries], tags), counts


class _Reader:
    """Lines to one flat table sorted by query, rank, doc_id; settled each time it has doubled."""

    def __init__(self, path: str, wanted: set[bytes] | None, depth: int | None) -> None:
        self.path, self.wanted, self.depth = path, wanted, depth
        self.queries: dict[bytes, int] = {}
        self.tags: dict[bytes, int] = {}
        self.counts = {"lines": 0, "other_queries": 0, "duplicates": 0, "beyond_depth": 0}
        self._settled = _FLAT.empty_table()
        self._fresh: list[pa.Table] = []
        self._pending: list[tuple[int, str, int, float, int]] = []

    def read(self, lines: IO[bytes]) -> None:
        for number, line in enumerate(lines, start=1):
            if not line.isascii():
                line = self._checked(line, number)
            fields = line.split()
            if not fields:
                continue
            self.counts["lines"] += 1
            if len(fields) != 6:
                raise self._malformed(number, f"six columns ({_FIELDS})", f"{len(fields)}", line)
            if self.wanted is not None and fields[0] not in self.wanted:
                self.counts["other_queries"] += 1
                continue
            self._pending.append(self._parse(fields, number, line))
            if len(self._pending) >= _BATCH:
                self._flush()

    def _parse(
        self, fields: list[bytes], number: int, line: bytes
    ) -> tuple[int, str, int, float, int]:
        query, _, doc_id, rank_text, score_text, tag = fields
        try:
            rank, score = int(rank_text), float(score_text)
        except ValueError:
            found = f"{rank_text!r} and {score_text!r}"
            expected = "an integer rank and a score in columns 4 and 5"
            raise self._malformed(number, expected, found, line) from None
        if not (abs(score) < _FLOAT32_LIMIT and abs(rank) < 1 << 63):  # NaN compares false
            found = f"{rank_text!r} and {score_text!r}"
            raise self._malformed(number, "a finite rank and score", found, line)
        query_number = self.queries.setdefault(query, len(self.queries))
        tag_number = self.tags.setdefault(tag, len(self.tags))
        return query_number, doc_id.decode(), rank, score, tag_number

    def _checked(self, line: bytes, number: int) -> bytes:
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            line.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.path}, line {number}: expected UTF-8, found {error.reason} at byte "
                f"{error.start}; convert the file, for example with iconv"
            ) from None
        return line

    def _malformed(self, number: int, expected: str, found: str, line: bytes) -> ValueError:
        text = line.decode().strip()
        text = text if len(text) <= 100 else text[:97] + "..."
        return ValueError(
            f"{self.path}, line {number}: expected {expected}, found {found}: {text!r}"
        )

    def _flush(self) -> None:
        columns = list(zip(*self._pending, strict=True)) or [()] * len(_FLAT)
        self._fresh.append(
            pa.table([pa.array(c, f.type) for c, f in zip(columns, _FLAT, strict=True)], _FLAT)
        )
        self._pending = []
        if sum(t.num_rows for t in self._fresh) > 4 * _BATCH + self._settled.num_rows:
            self.settle()

    def settle(self) -> pa.Table:
        """Sort what is held, keep the best rank of each document, cut at the depth."""
        if self._pending:
            self._flush()
        table = pa.concat_tables([self._settled, *self._fresh]).combine_chunks()
        self._fresh = []
        kept = _without_duplicates(table)
        self.counts["duplicates"] += table.num_rows - kept.num_rows
        table = kept
        if self.depth is not None:
            query = table["query"].to_numpy()
            position = np.arange(len(query)) - np.searchsorted(query, query, side="left")
            self.counts["beyond_depth"] += int((position >= self.depth).sum())
            table = table.filter(pa.array(position < self.depth))
        self._settled = table
        return table


def _sorted(table: pa.Table, *keys: str) -> pa.Table:
    return table.take(pc.sort_indices(table, [(key, "ascending") for key in keys]))


def _without_duplicates(table: pa.Table) -> pa.Table:
    """Sorted by query, rank, doc_id, with the best rank of each document. Sorting beats hashing."""
    table = _sorted(table, "query", "doc_id", "rank")
    query, doc_id = _flat_array(table, "query"), _flat_array(table, "doc_id")
    same = pc.and_(pc.equal(query[1:], query[:-1]), pc.equal(doc_id[1:], doc_id[:-1]))
    first = np.append(True, ~same.to_numpy(zero_copy_only=False))[: table.num_rows]
    return _sorted(table.filter(pa.array(first)), "query", "rank", "doc_id")


def _nest(flat: pa.Table, queries: list[str], tags: list[str]) -> pa.Table:
    """CANDIDATES, built 8,192 queries at a time so that 32-bit list offsets never overflow."""
    bounds = np.searchsorted(flat["query"].to_numpy(), np.arange(len(queries) + 1))
    names = pa.array(tags, pa.string())
    batches = []
    for start in range(0, len(queries), 8192):
        stop = min(start + 8192, len(queries))
        part = flat.slice(bounds[start], bounds[stop] - bounds[start]).combine_chunks()
        offsets = bounds[start : stop + 1] - bounds[start]
        ranks = np.arange(part.num_rows) - np.repeat(offsets[:-1], np.diff(offsets)) + 1
        values = [
            _flat_array(part, "doc_id").cast(pa.string()),
            pa.array(ranks, pa.int32()),
            _flat_array(part, "score"),
            names.take(_flat_array(part, "tag")),
        ]
        lists = [pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), v) for v in values]
        ids = pa.array(queries[start:stop], pa.string())
        batches.append(pa.table([ids, *lists], schema=CANDIDATES))
    return pa.concat_tables(batches) if batches else CANDIDATES.empty_table()


def _flat_array(table: pa.Table, name: str) -> pa.Array:
    column = table[name].combine_chunks()
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column


@contextmanager
def _open_bytes(path: str | Path) -> Iterator[IO[bytes]]:
    with open(path, "rb") as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        try:
            yield io.BufferedReader(gzip.GzipFile(fileobj=raw)) if packed else raw
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{path}: expected a complete gzip file, found {error}; "
                "it is truncated or damaged, fetch it again"
            ) from None


def write_trec_run(
    target: str | Path | IO[str], run: pa.Table, tag: str, *, score_from_rank: bool = False
) -> int:
    """Write a RUN or CANDIDATES table as a TREC run, gzipped if the path ends in .gz.

    The rank column is the order. trec_eval ignores that column and sorts by score, and behind a
    re-ranked head the tail has first-stage scores; `score_from_rank` writes -rank as the score, for
    readers that sort by it.

    Returns:
        The number of lines written.

    Raises:
        ValueError: an id or the tag is empty or has white space, which a run file cannot hold.
    """
    if isinstance(target, str | Path):
        path = Path(target)
        with open(path, "wb") as raw:
            packed = path.suffix == ".gz"
            # No time stamp and no name inside: same run, same bytes.
            binary: Any = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if packed else raw
            with io.TextIOWrapper(binary, encoding="utf-8", newline="\n") as text:
                return write_trec_run(text, run, tag, score_from_rank=score_from_rank)
    lines = 0
    _check_id(tag, "tag")
    columns = (run[name].to_pylist() for name in ("query_id", "doc_ids", "scores"))
    for query_id, doc_ids, scores in zip(*columns, strict=True):
        _check_id(query_id, "query_id")
        for rank, (doc_id, score) in enumerate(zip(doc_ids, scores, strict=True), start=1):
            _check_id(doc_id, "doc_id")
            shown = -rank if score_from_rank else f"{score:.9g}"
            target.write(f"{query_id} Q0 {doc_id} {rank} {shown} {tag}\n")
            lines += 1
    return lines


def _check_id(text: str, what: str) -> None:
    if text.encode().split() != [text.encode()]:
        raise ValueError(
            f"{what} {text!r}: a TREC run needs ids without white space that are not empty; "
            "rename it, or keep this run as Parquet"
        )


def rerank(candidates: pa.Table, scores: Mapping[str, Sequence[float]], depth: int) -> pa.Table:
    """The first `depth` candidates by score, then the rest of the candidates in first-stage order.

    Args:
        candidates: CANDIDATES, best first.
        scores: per query one score for each of its first min(depth, n) candidates, in their order,
            higher is better, read as float32. Equal scores are ordered by doc_id.
        depth: at least 1.

    Returns:
        RUN with one row per row of `candidates`; the tail keeps its first-stage scores, which may
        exceed those of the head.

    Raises:
        ValueError: a query has no scores, the wrong number of them, or NaN among them.
    """

    def order(query_id: str, head: list[str]) -> tuple[list[int], np.ndarray]:
        given = np.asarray(scores.get(query_id, ()), dtype=np.float32)
        if given.shape != (len(head),):
            raise ValueError(
                f"query {query_id!r}: expected {len(head)} scores (depth {depth}), "
                f"found {given.size}; score these candidates first"
            )
        if np.isnan(given).any():
            raise ValueError(
                f"query {query_id!r}: a score is NaN (document "
                f"{head[int(np.isnan(given).argmax())]!r}); the model has diverged or overflowed"
            )
        return sorted(range(len(head)), key=lambda i: (-given[i], head[i])), given

    return _reordered(candidates, depth, order)


def oracle(candidates: pa.Table, qrels: pa.Table, depth: int) -> pa.Table:
    """The best any re-ranker of the first `depth` candidates could do: by relevance, ties by rank.

    A document without judgement counts as relevance 0. Since this reads the judgements it is a
    bound, no competitor.
    """
    columns = (qrels[name].to_pylist() for name in ("query_id", "doc_id", "relevance"))
    judged = {(q, d): relevance for q, d, relevance in zip(*columns, strict=True)}

    def order(query_id: str, head: list[str]) -> tuple[list[int], np.ndarray]:
        gains = np.array([judged.get((query_id, d), 0) for d in head], dtype=np.float32)
        return sorted(range(len(head)), key=lambda i: -gains[i]), gains

    return _reordered(candidates, depth, order)


def _reordered(candidates: pa.Table, depth: int, order: Any) -> pa.Table:
    if depth < 1:
        raise ValueError(f"expected a depth of at least 1, found {depth}")
    columns = (candidates[name].to_pylist() for name in ("query_id", "doc_ids", "scores"))
    rows = []
    for query_id, doc_ids, first_stage in zip(*columns, strict=True):
        permutation, given = order(query_id, doc_ids[:depth])
        rows.append(
            {
                "query_id": query_id,
                "doc_ids": [doc_ids[i] for i in permutation] + doc_ids[depth:],
                "scores": [float(given[i]) for i in permutation] + first_stage[depth:],
            }
        )
    return pa.Table.from_pylist(rows, schema=RUN)
