"""RankGPT's published lists as a candidate source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from raypipe.config import Config, ConfigError
from raypipe.datasets.dataset import file_safe
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.names import Name
from raypipe.records import CANDIDATES, candidate_row
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import check_files, checksums, full_paths
from raypipe.tables.json_lists import read_json_lists
from raypipe.tables.text_table import TextTable


class RankGptLists(Config):
    """The documents that the language model of the `rankgpt` teacher was shown, in that order."""

    type: Literal["rankgpt_lists"] = "rankgpt_lists"
    path: str
    """JSON lines: query_id, and retrieved_passages with docid and rank; or results of rank_llm."""
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
    """(line number, query id, documents by rank) of every list: see `read_json_lists`."""
    for found in read_json_lists(path, counts):
        yield found.number, found.query_id, found.doc_ids


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
        scores = [-float(rank) for rank in range(1, len(doc_ids) + 1)]  # the file has an order only
        return candidate_row(query_id, doc_ids, scores, self.source.name)
