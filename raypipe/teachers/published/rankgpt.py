"""RankGPT's lists with their permutations: an order per query."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa

from raypipe.candidates.rankgpt import read_answers, read_lists
from raypipe.config import ConfigError
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.inference.lists import Lists
from raypipe.records import TEACHER
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import checksums, full_paths
from raypipe.tables.text_table import TextTable
from raypipe.teachers.permutations import parse_permutation
from raypipe.teachers.published.join import no_query
from raypipe.teachers.published.wanted import spans

REPAIRS = (
    "permutations_repaired",
    "permutations_unparsable",
    "ids_repeated",
    "ids_out_of_range",
    "ids_missing",
    "duplicates",
    "lists_other_queries",
)
"""Counted even where there is none, of the queries of the data set alone."""

Values = dict[str, tuple[list[str], list[float]]]
"""By query id: documents and their values."""


@dataclass(frozen=True)
class RankGptOrders(Step):
    """Ranks from a language model's answers, one per list; every repair is counted."""

    lists_path: str
    """JSON lines: a query id, and its documents in the order in which the model saw them."""
    permutations_path: str
    """A JSON list of answers, "[5] > [18] > ...", or one JSON string per line; counts from 1."""
    unparsable: Literal["drop", "keep"]
    lists: Lists

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"rankgpt-{self.lists.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        return {
            "format": "rankgpt",
            "values": "rank",
            "files": checksums([self.lists_path, self.permutations_path]),
            "unparsable": self.unparsable,
        }

    def facts(self) -> Mapping[str, Any]:
        return {"values": "rank", "paths": full_paths([self.lists_path, self.permutations_path])}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.lists.collection, "queries": self.lists.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        queries = TextTable(attempt.inputs["queries"].local() / QUERIES_FILE).ids()
        counts = Counter(dict.fromkeys(REPAIRS, 0))
        orders = self._orders(queries, counts)
        if not any(orders.values()):
            raise ConfigError(
                f"rankgpt file {self.permutations_path}: none of the {len(orders)} answers for "
                'queries of the data set has an order; expected text such as "[2] > [1] > [3]"'
            )
        known_orders = self._known(orders, docs, counts)
        found = {q: (order, _ranks(order)) for q, order in known_orders.items()}
        return {**counts, **_put(attempt, queries, found)}

    def _known(
        self, orders: dict[str, list[str]], docs: TextTable, counts: Counter[str]
    ) -> dict[str, list[str]]:
        """The documents of each order that are in the collection."""
        flat = docs.rows_of([d for order in orders.values() for d in order]) >= 0
        counts["unknown_documents"] = int((~flat).sum())
        if not flat.any():
            query, order = next((q, o) for q, o in orders.items() if o)
            raise ConfigError(
                f"rankgpt file {self.lists_path}: none of its {len(flat)} documents is in the "
                f"collection; query {query!r} has {order[0]!r}, the collection "
                f"{docs.ids()[0].as_py()!r}; the file's document ids must be those of the data set"
            )
        there = iter(flat.tolist())
        return {q: [d for d in order if next(there)] for q, order in orders.items()}

    def _orders(self, queries: pa.Array, counts: Counter[str]) -> dict[str, list[str]]:
        """The model's order of every list of a wanted query, unknown documents still in it."""
        path = Path(self.lists_path).expanduser()
        answers = read_answers(Path(self.permutations_path).expanduser())
        wanted = set(queries.to_pylist())
        found: dict[str, list[str]] = {}
        example, lists = None, 0
        for number, query_id, doc_ids in read_lists(path):
            lists, example = lists + 1, example or query_id
            if query_id not in wanted:
                counts["lists_other_queries"] += 1
            elif query_id in found:
                raise ConfigError(f"{path}, line {number}: query {query_id!r} has two lists")
            elif lists <= len(answers):
                found[query_id] = self._order(answers[lists - 1], doc_ids, counts)
        if lists != len(answers):
            raise ConfigError(
                f"rankgpt: {self.lists_path} has {lists} lists, {self.permutations_path} has "
                f"{len(answers)} permutations; line i of the one belongs to entry i of the other"
            )
        counts["lists"] = lists
        if not found:
            raise no_query(f"rankgpt file {path}", f"{lists} lists", example, queries)
        return found

    def _order(self, answer: str, doc_ids: list[str], counts: Counter[str]) -> list[str]:
        """Empty for an answer without an order that is dropped."""
        read = parse_permutation(answer, len(doc_ids))
        if not read.parsable:
            counts["permutations_unparsable"] += 1
            if self.unparsable == "drop":
                return []
        else:
            counts["permutations_repaired"] += read.repaired
            counts["ids_repeated"] += read.repeats
            counts["ids_out_of_range"] += read.out_of_range
            counts["ids_missing"] += read.missing
        order = list(dict.fromkeys(doc_ids[i] for i in read.order))
        counts["duplicates"] += len(doc_ids) - len(order)
        return order


def _ranks(doc_ids: list[str]) -> list[float]:
    return [float(rank) for rank in range(1, len(doc_ids) + 1)]


def _put(attempt: Attempt, queries: pa.ChunkedArray, found: Values) -> dict[str, int]:
    """Write one row per query, in the query set's order."""
    for number, span in enumerate(spans(len(queries))):
        ids = queries[span].to_pylist()
        rows = [found.get(query_id, ([], [])) for query_id in ids]
        columns = [ids, [docs for docs, _ in rows], [values for _, values in rows]]
        table = pa.Table.from_arrays(
            [pa.array(c, f.type) for c, f in zip(columns, TEACHER, strict=True)], schema=TEACHER
        )
        attempt.put_table(table, f"part-{number:05d}.parquet")
    return {"queries_without_list": sum(not found.get(q, ([], []))[0] for q in queries.to_pylist())}
