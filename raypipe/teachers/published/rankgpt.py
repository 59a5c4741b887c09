"""RankGPT's lists with their permutations: an order per query."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa

from raypipe.candidates.rankgpt import read_lists
from raypipe.config import Config, ConfigError
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.inference.lists import Lists
from raypipe.names import quoted
from raypipe.records import TEACHER
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import check_files, checksums, full_paths, read_bounded
from raypipe.storage.parts import part_name
from raypipe.tables.json_text import json_lines, parse_json
from raypipe.tables.text_table import TextTable
from raypipe.teachers.permutations import parse_permutation
from raypipe.teachers.published.join import no_query
from raypipe.teachers.published.wanted import spans

LARGEST_FILE = 256 << 20
"""Bytes of a file of answers, unpacked: it is read whole."""
REPAIRS = (
    "permutations_repaired",
    "permutations_unparsable",
    "ids_repeated",
    "ids_out_of_range",
    "ids_missing",
    "duplicates",
    "lists_other_queries",
)
"""Counts that are reported even at 0; all but the last are of the data set's queries alone."""


class RankGptFile(Config):
    """Lists and a language model's answers about them, as RankGPT published them."""

    type: Literal["rankgpt"] = "rankgpt"
    lists: str
    """JSON lines: query_id, and retrieved_passages with docid and rank."""
    permutations: str
    """A JSON list of strings such as "[5] > [18] > [2]", or one JSON string per line."""
    unparsable: Literal["drop", "keep"] = "drop"
    """An answer without any order: no values for the query, or the list as the model saw it."""

    values: ClassVar[Literal["score", "rank"]] = "rank"
    title: ClassVar[str] = "RankGPT"
    needs_lists: ClassVar[bool] = False

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that reads the files."""
        return RankGptOrders(self, lists)

    def check(self) -> None:
        """The files exist."""
        check_files(self.paths, "rankgpt file")

    @property
    def paths(self) -> tuple[str, str]:
        """The file of lists and the file of answers."""
        return self.lists, self.permutations


@dataclass(frozen=True)
class RankGptOrders(Step):
    """Ranks from a language model's answers, one per list; every repair is counted."""

    teacher: RankGptFile
    lists: Lists

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"rankgpt-{self.lists.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        return {
            "format": "rankgpt",
            "values": "rank",
            "files": checksums(self.teacher.paths),
            "unparsable": self.teacher.unparsable,
        }

    def facts(self) -> Mapping[str, Any]:
        return {"values": "rank", "paths": full_paths(self.teacher.paths)}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.lists.collection, "queries": self.lists.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        queries = TextTable(attempt.inputs["queries"].local() / QUERIES_FILE).ids()
        counts = Counter(dict.fromkeys(REPAIRS, 0))
        orders = self._orders(queries, counts)
        if not any(orders.values()):
            raise ConfigError(
                f"rankgpt file {self.teacher.permutations}: none of the {len(orders)} answers for "
                'queries of the data set has an order; expected text such as "[2] > [1] > [3]"'
            )
        orders = self._known(orders, docs, counts)
        _write(attempt, queries, orders)
        empty = sum(not orders.get(query_id) for query_id in queries.to_pylist())
        return {**counts, "queries_without_list": empty}

    def _known(
        self, orders: dict[str, list[str]], docs: TextTable, counts: Counter[str]
    ) -> dict[str, list[str]]:
        """The documents of each order that are in the collection."""
        flat = docs.rows_of([d for order in orders.values() for d in order]) >= 0
        counts["unknown_documents"] = int((~flat).sum())
        if not flat.any():
            query, order = next((q, o) for q, o in orders.items() if o)
            raise ConfigError(
                f"rankgpt file {self.teacher.lists}: none of its {len(flat)} documents is in the "
                f"collection; query {query!r} has {order[0]!r}, the collection "
                f"{docs.ids()[0].as_py()!r}; the file's document ids must be those of the data set"
            )
        there = iter(flat.tolist())
        return {q: [d for d in order if next(there)] for q, order in orders.items()}

    def _orders(self, queries: pa.Array, counts: Counter[str]) -> dict[str, list[str]]:
        """The model's order of every list of a wanted query, unknown documents still in it."""
        path = Path(self.teacher.lists).expanduser()
        answers = read_answers(Path(self.teacher.permutations).expanduser())
        wanted = set(queries.to_pylist())
        orders: dict[str, list[str]] = {}
        example, lists = None, 0
        for number, query_id, doc_ids in read_lists(path, counts):
            lists, example = lists + 1, example or query_id
            if query_id not in wanted:
                counts["lists_other_queries"] += 1
            elif query_id in orders:
                where = f"{path}, line {number}"
                raise ConfigError(f"{where}: query {query_id!r} has two lists; keep one")
            elif lists <= len(answers):
                orders[query_id] = self._order(answers[lists - 1], doc_ids, counts)
        if lists != len(answers):
            raise ConfigError(
                f"rankgpt: {self.teacher.lists} has {lists} lists, {self.teacher.permutations} has "
                f"{len(answers)} permutations; line i of the one belongs to entry i of the other"
            )
        counts["lists"] = lists
        if not orders:
            raise no_query(f"rankgpt file {path}", f"{lists} lists", example, queries)
        return orders

    def _order(self, answer: str, doc_ids: list[str], counts: Counter[str]) -> list[str]:
        """The documents in the order of the answer; none if it has no order and is dropped."""
        permutation = parse_permutation(answer, len(doc_ids))
        if not permutation.parsable:
            counts["permutations_unparsable"] += 1
            if self.teacher.unparsable == "drop":
                return []
        else:
            counts["permutations_repaired"] += permutation.repaired
            counts["ids_repeated"] += permutation.repeats
            counts["ids_out_of_range"] += permutation.out_of_range
            counts["ids_missing"] += permutation.missing
        order = list(dict.fromkeys(doc_ids[i] for i in permutation.order))
        counts["duplicates"] += len(doc_ids) - len(order)
        return order


def read_answers(path: Path) -> list[str]:
    """A JSON list of strings, or one JSON string per line.

    Raises:
        ConfigError: the file is neither, or larger than any that is read.
    """
    remedy = "a hundred thousand answers take 40 MB"
    data = read_bounded(path, "answers", LARGEST_FILE, remedy)
    try:
        answers = parse_json(data)
    except ValueError:
        answers = [line for _, line in json_lines(path)]
    answers = [answers] if isinstance(answers, str) else answers
    wrong = [a for a in answers if not isinstance(a, str)] if isinstance(answers, list) else answers
    if wrong or not isinstance(answers, list):
        raise ConfigError(
            f"{path}: expected a JSON list of strings, or a JSON string per line, found "
            f"{quoted(wrong, 60)}; correct it"
        )
    return answers


def _write(attempt: Attempt, queries: pa.ChunkedArray, orders: Mapping[str, list[str]]) -> None:
    """One row per query, in the query set's order; a query without an order has an empty row."""
    for number, span in enumerate(spans(len(queries))):
        ids = queries[span].to_pylist()
        lists = [orders.get(query_id, []) for query_id in ids]
        columns = [ids, lists, [range(1, len(doc_ids) + 1) for doc_ids in lists]]
        table = pa.Table.from_arrays(
            [pa.array(c, f.type) for c, f in zip(columns, TEACHER, strict=True)], schema=TEACHER
        )
        attempt.put_table(table, part_name(number))
