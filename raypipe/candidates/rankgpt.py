"""RankGPT's published lists as a candidate source."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from raypipe.config import Config, ConfigError
from raypipe.datasets.dataset import file_safe
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.names import Name, quoted
from raypipe.records import CANDIDATES
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import check_files, checksums, full_paths
from raypipe.tables.fields import SeenIds, are_plain
from raypipe.tables.json_text import json_lines
from raypipe.tables.text_table import TextTable


class RankGptLists(Config):
    """The documents that the language model of the `rankgpt` teacher was shown, in that order."""

    type: Literal["rankgpt_lists"] = "rankgpt_lists"
    path: str
    """JSON lines: query_id, and retrieved_passages with docid and rank."""
    depth: int = Field(100, ge=1)
    """Candidates per query."""
    name: Name = "RankGPT's lists"
    """The source's name in tables."""

    @property
    def label(self) -> str:
        return self.name

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that reads the file."""
        return RankGptCandidates(self, collection, queries)

    def check(self) -> None:
        """The file is there."""
        check_files([self.path], "rankgpt file")


def read_lists(
    path: Path, counts: Counter[str] | None = None
) -> Iterator[tuple[int, str, list[str]]]:
    """(line number, query id, documents by rank) of every line.

    The query id may be `qid`, or stand in the passages; the passages may be `hits` or plain ids.
    Without ranks they stand in order.

    Args:
        counts: where ids with characters that nobody sees are counted.

    Raises:
        ConfigError: a line is not JSON, has no query id or no ids of documents, or an id or a rank
            that is none.
    """
    seen = SeenIds(Counter() if counts is None else counts)
    for number, line in json_lines(path):
        try:
            query_id, doc_ids = _read_list(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: {error}; correct it") from None
        if not are_plain([query_id, *doc_ids]):
            place = f"{path}, line {number}"
            for text in (query_id, *doc_ids):
                seen.look(text, lambda text, place=place: place)
        yield number, query_id, doc_ids


def _read_list(line: Any) -> tuple[str, list[str]]:
    if not isinstance(line, dict):
        raise ValueError(f"expected an object, found {quoted(line, 60)}")
    passages = _value(line, "retrieved_passages", "hits")
    if not isinstance(passages, list):
        raise ValueError(f"expected a list retrieved_passages, found {quoted(sorted(line))}")
    named = passages
    if not set(map(type, passages)) <= {dict}:
        named = [p if isinstance(p, dict) else {"docid": p} for p in passages]
    query_id = _value({**(named[0] if named else {}), **line}, "query_id", "qid")
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
    if any(rank is not None for rank in ranks):
        if not set(map(type, ranks)) <= {int}:
            _check_ranks(ranks)
        texts = [texts[i] for i in sorted(range(len(ranks)), key=ranks.__getitem__)]
    return str(query_id), texts


def _check_ranks(ranks: Sequence[Any]) -> None:
    """Refuse what is no finite number; to Python, true is one."""
    for rank in ranks:
        if type(rank) is not int and not (type(rank) is float and math.isfinite(rank)):
            raise ValueError(f"expected a number as every rank, found {quoted(rank)}")


def _value(line: Mapping[str, Any], *names: str) -> Any:
    return next((line[name] for name in names if line.get(name) is not None), None)


@dataclass(frozen=True)
class RankGptCandidates(Step):
    """One row per query of the set, in the order in which the model saw the documents."""

    source: RankGptLists
    collection: Collection
    queries: Queries

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"{file_safe(self.source.name)}-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        files, depth = checksums([self.source.path]), self.source.depth
        return {"format": "rankgpt", "files": files, "depth": depth, "source": self.source.name}

    def facts(self) -> Mapping[str, Any]:
        return {"paths": full_paths([self.source.path])}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection, "queries": self.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        queries = TextTable(attempt.inputs["queries"].local() / QUERIES_FILE).ids().to_pylist()
        counts = Counter(dict.fromkeys(("lists_other_queries", "duplicates", "beyond_depth"), 0))
        lists = self._lists(set(queries), counts)
        flat = docs.rows_of([d for doc_ids in lists.values() for d in doc_ids]) >= 0
        counts["unknown_documents"] = int((~flat).sum())
        there = iter(flat.tolist())
        lists = {q: [d for d in doc_ids if next(there)] for q, doc_ids in lists.items()}
        rows = [self._row(query_id, lists.get(query_id, [])) for query_id in queries]
        counts["candidates"] = sum(len(row["doc_ids"]) for row in rows)
        counts["queries_without_candidates"] = sum(not row["doc_ids"] for row in rows)
        if not counts["candidates"]:
            raise ConfigError(
                f"rankgpt file {self.source.path}: none of its {counts['lists']} lists has a query "
                "and a document of the data set; its ids must be those of the data set"
            )
        attempt.put_table(pa.Table.from_pylist(rows, schema=CANDIDATES))
        return dict(counts)

    def _lists(self, wanted: set[str], counts: Counter[str]) -> dict[str, list[str]]:
        lists: dict[str, list[str]] = {}
        path = Path(self.source.path).expanduser()
        for number, query_id, doc_ids in read_lists(path, counts):
            counts["lists"] += 1
            if query_id not in wanted:
                counts["lists_other_queries"] += 1
                continue
            if query_id in lists:
                where = f"{self.source.path}, line {number}"
                raise ConfigError(f"{where}: query {query_id} has a second list; keep one")
            distinct = list(dict.fromkeys(doc_ids))
            lists[query_id] = distinct[: self.source.depth]
            counts["duplicates"] += len(doc_ids) - len(distinct)
            counts["beyond_depth"] += len(distinct) - len(lists[query_id])
        return lists

    def _row(self, query_id: str, doc_ids: list[str]) -> dict[str, Any]:
        ranks = range(1, len(doc_ids) + 1)
        return {
            "query_id": query_id,
            "doc_ids": doc_ids,
            "ranks": ranks,
            "scores": [-float(rank) for rank in ranks],  # the file has an order only
            "sources": [self.source.name] * len(doc_ids),
        }
